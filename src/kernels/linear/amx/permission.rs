//! Whether this machine has AMX's int8 products and lets this process use them.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::LazyLock;

use super::super::Isa;

/// Leaf 7, edx: tile registers, and their int8 products.
const FEATURES: u32 = 1 << 24 | 1 << 25;
/// In the register that says what the system saves of a thread: tile configuration, and tiles.
const SAVED: u64 = 1 << 17 | 1 << 18;

/// Linux saves tiles only for processes that have asked, because they take 8 KiB of each thread and signal.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    /// `ARCH_REQ_XCOMP_PERM`, and the number of the tiles' state; see the kernel's `Documentation/arch/x86/xstate.rst`.
    const REQUEST_PERMISSION: libc::c_int = 0x1023;
    const TILES: libc::c_ulong = 18;
    // SAFETY: a system call of two numbers, which touches no memory of ours; where it is unknown or refused it says so.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILES) == 0 }
}

/// How other systems give them out is not known here.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Whether AMX is there, with AVX-512 for all that is not a product of tiles.
pub(in super::super) fn is_available() -> bool {
    /// Asked once: under a hypervisor each of these questions takes microseconds.
    static AVAILABLE: LazyLock<bool> =
        LazyLock::new(|| Isa::Avx512Vnni.is_available() && has_tiles() && is_permitted());
    *AVAILABLE
}

fn has_tiles() -> bool {
    #[expect(unused_unsafe, reason = "compilers before 1.95 may not know that it is safe")]
    // SAFETY: a processor with AVX-512 has the instruction and this leaf.
    let leaf = unsafe { __cpuid_count(7, 0) };
    if leaf.edx & FEATURES != FEATURES {
        return false;
    }
    // SAFETY: AVX-512 is only found where the system has turned this instruction on.
    unsafe { _xgetbv(0) & SAVED == SAVED }
}
