//! The shim finds what it is there to find (`faults.cu`).

use super::*;

#[repr(C)]
#[derive(Clone, Copy)]
struct Fault {
    input: Address,
    output: Address,
    which: u32,
    unused: u32,
}

// SAFETY: `repr(C)`, numbers, no padding.
unsafe impl Plain for Fault {}

fn run(which: u32) -> Result<Run, String> {
    let mut device = HostDevice::default();
    let input = device.upload(&(0..64u32).collect::<Vec<_>>());
    let output = device.output::<u32>(64);
    let launch = Launch { kernel: "fault", blocks: 1, threads: 64, shared_bytes: 256 };
    device.launch(launch, Fault { input, output, which, unused: 0 })
}

#[test]
fn a_kernel_without_faults_runs_and_its_bytes_are_counted() {
    if !available() {
        return;
    }
    let found = run(0).unwrap();
    let expected: Vec<u32> = (0..64).rev().collect();
    assert_eq!(found.outputs, [bytes_of(&expected)]);
    assert_eq!((found.loaded, found.distinct_loaded, found.stored), (256, 256, 256));
    run(12).unwrap();
}

#[test]
fn every_fault_is_found() {
    if !available() {
        return;
    }
    for (which, expected) in [
        (1, "lie in no buffer"),
        (2, "lie in no buffer"),
        (3, "a divergent barrier"),
        (4, "shared memory: offset 128 is read and was never written"),
        (5, "global memory: a race at offset 0"),
        (6, "is read and was never written"),
        (7, "are not aligned"),
        (8, "a divergent shuffle"),
        (9, "a divergent meeting"),
        (10, "shared memory: a race at offset 0"),
        (11, "shared memory: offset 256 of 256 bytes"),
    ] {
        let error = run(which).expect_err("a fault is an error");
        assert!(error.contains(expected), "fault {which}: {error}");
    }
}
