//! The C library's heap, kept from step to step.

/// Tells the C library to keep what a step gives back for the next one.
///
/// Left alone, GNU's gives the end of its heap back to the system between the outputs of one layer and those of the next, and every
/// page of them is cleared and mapped anew: that took an eighth of a prompt of 512 tokens (benches/README.md). With this, it keeps
/// up to 64 MiB for each thread that works with tensors, and takes all pieces below 32 MiB, the most that it allows, from what it
/// keeps. To be called when the weights are there: while they are read, pieces that come and go had better not stay.
pub fn keep_between_steps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers, and the library checks them. It sets words that the library itself changes while other
    // threads work, whenever a mapped piece is freed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}
