//! The C library's heap, kept from step to step.

/// Tells the C library to keep what a step gives back for the next one.
///
/// Left alone, GNU's gives the end of its heap back to the system between the outputs of one layer and those of the next, and every
/// page of them is cleared and mapped anew: benches/README.md, *Decoders beside peers*, has what that took. With this, each arena
/// (they are the process's, the engine's thread has one) keeps up to 64 MiB at its end, and all pieces below 32 MiB, the
/// most that the library allows, come from arenas. To be called when weights and K/V slabs are there: while weights are read, pieces
/// that come and go had better not stay, and slabs that came from an arena would be cleared, so touched, whole.
///
/// Whether the library has agreed; others than GNU's are not asked.
pub fn keep_between_steps() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers, and the library checks them. It is not for several threads at once, for the sake of the
    // words that it sets; but these the library's own `free` sets too, in any thread and without a lock, when a mapped piece goes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20) == 1
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_agrees() {
        assert!(super::keep_between_steps());
    }
}
