//! Runs the CUDA kernels on the host: compiles `driver.cpp`, which includes every `.cu` file, and talks to it through pipes.
//!
//! The shim checks what no comparison of results can: accesses beyond a buffer, races, divergent barriers, memory that is
//! read before it is written. It also counts the bytes that warps move.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

use super::{Address, Launch, Plain, bytes_of};

mod tests;

/// Buffers lie this far apart in the shim's address space, so that nothing but an error reaches from one into another.
const APART: u64 = 1 << 32;
/// Where nothing else of a process lies.
const FIRST: u64 = 0x2000_0000_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ReadOnly = 0,
    Output = 1,
    InOut = 2,
}

#[derive(Debug)]
struct Buffer {
    kind: Kind,
    unit: usize,
    length: usize,
    bytes: Vec<u8>,
}

/// The memory of a device that is a process of the host.
#[derive(Debug, Default)]
pub(in crate::kernels) struct HostDevice {
    buffers: Vec<Buffer>,
}

/// What a kernel left, and what it moved.
#[derive(Debug)]
pub(in crate::kernels) struct Run {
    /// Bytes that warps loaded from global memory; what a warp reads twice without a barrier between counts once.
    pub loaded: u64,
    /// Bytes stored to global memory.
    pub stored: u64,
    /// Bytes of global memory that were loaded at least once.
    pub distinct_loaded: u64,
    outputs: Vec<Vec<u8>>,
}

impl HostDevice {
    /// Memory that a kernel may only read.
    pub fn upload<T: Plain>(&mut self, values: &[T]) -> Address {
        self.add(Kind::ReadOnly, size_of::<T>(), size_of_val(values), bytes_of(values).to_vec())
    }

    /// Memory that a kernel may change.
    pub fn upload_mutable<T: Plain>(&mut self, values: &[T]) -> Address {
        self.add(Kind::InOut, size_of::<T>(), size_of_val(values), bytes_of(values).to_vec())
    }

    /// Memory for `count` values that the kernel has to write before it reads them.
    pub fn output<T: Plain>(&mut self, count: usize) -> Address {
        self.add(Kind::Output, size_of::<T>(), count * size_of::<T>(), Vec::new())
    }

    fn add(&mut self, kind: Kind, unit: usize, length: usize, bytes: Vec<u8>) -> Address {
        self.buffers.push(Buffer { kind, unit: unit.min(4), length, bytes });
        self.address(self.buffers.len() - 1)
    }

    fn address(&self, index: usize) -> Address {
        Address(FIRST + index as u64 * APART)
    }

    /// Runs a kernel. Fails with the shim's message when the kernel does what it must not.
    pub fn launch<A: Plain>(&self, launch: Launch, arguments: A) -> Result<Run, String> {
        let driver = driver().expect("a caller has asked for `available`");
        let mut child = Command::new(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", driver.display()))?;
        let job = self.job(launch, bytes_of(&[arguments]));
        // It reads the whole job before it writes, and may end early: then its message says why.
        let _ = child.stdin.take().expect("stdin is piped").write_all(&job);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(self.results(&output.stdout))
    }

    fn job(&self, launch: Launch, arguments: &[u8]) -> Vec<u8> {
        fn word(job: &mut Vec<u8>, value: usize) {
            job.extend_from_slice(&(value as u32).to_le_bytes());
        }
        let mut job = Vec::new();
        word(&mut job, launch.kernel.len());
        job.extend_from_slice(launch.kernel.as_bytes());
        for value in [launch.blocks, launch.threads, launch.shared_bytes] {
            word(&mut job, value as usize);
        }
        word(&mut job, self.buffers.len());
        for (index, buffer) in self.buffers.iter().enumerate() {
            word(&mut job, buffer.kind as usize);
            word(&mut job, buffer.unit);
            job.extend_from_slice(&self.address(index).0.to_le_bytes());
            job.extend_from_slice(&(buffer.length as u64).to_le_bytes());
            job.extend_from_slice(&buffer.bytes);
        }
        word(&mut job, arguments.len());
        job.extend_from_slice(arguments);
        job
    }

    fn results(&self, stdout: &[u8]) -> Run {
        let (counts, mut rest) = stdout.split_at(24);
        let count = |at: usize| u64::from_le_bytes(counts[at..at + 8].try_into().expect("eight bytes"));
        let written = self.buffers.iter().filter(|buffer| buffer.kind != Kind::ReadOnly);
        let outputs = written.map(|buffer| {
            let (bytes, behind) = rest.split_at(buffer.length);
            rest = behind;
            bytes.to_vec()
        });
        let outputs = outputs.collect();
        Run { loaded: count(0), stored: count(8), distinct_loaded: count(16), outputs }
    }
}

impl Run {
    /// The `index`-th buffer that the kernel could write.
    pub fn f32(&self, index: usize) -> Vec<f32> {
        let words = self.outputs[index].as_chunks::<4>().0;
        words.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// The same as 32-bit words.
    pub fn u32(&self, index: usize) -> Vec<u32> {
        self.outputs[index].as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
    }

    /// The same in 16-bit words.
    pub fn u16(&self, index: usize) -> Vec<u16> {
        self.outputs[index].as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect()
    }
}

/// Whether the kernels can run here; says why not. With `DEPT_TEST_CXX=required` they must.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the server's configuration")]
pub(in crate::kernels) fn available() -> bool {
    match driver() {
        Ok(_) => true,
        Err(why) => {
            assert!(std::env::var_os("DEPT_TEST_CXX").is_none_or(|it| it != "required"), "{why}");
            eprintln!("SKIPPED: the CUDA kernels were not run on the host: {why}");
            false
        }
    }
}

/// The compiled driver, kept beside the test binary under the digest of its sources.
fn driver() -> Result<&'static Path, String> {
    static DRIVER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DRIVER.get_or_init(build).as_deref().map_err(String::clone)
}

fn build() -> Result<PathBuf, String> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let sources = [
        "cuda/device.cuh",
        "cuda/shim/shim.hpp",
        "cuda/shim/streams.hpp",
        "cuda/shim/driver.cpp",
        "cuda/shim/kernels.hpp",
        "cuda/shim/faults.cu",
        "best/best.cu",
        "dept_embed/dept_embed.cu",
        "matmul/matmul.cu",
        "norm/norm.cu",
        "ragged_attention/key_values.cu",
        "ragged_attention/ragged_attention.cu",
        "rope/rope.cu",
    ];
    let mut digest = Sha256::new();
    for source in sources {
        let path = kernels.join(source);
        digest.update(std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let name: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = std::env::current_exe().map_err(|error| error.to_string())?;
    let driver = folder.with_file_name(format!("cuda-shim-{name}"));
    if !driver.exists() {
        // Another process may build it too: the name appears with the whole file.
        let unfinished = driver.with_extension(std::process::id().to_string());
        compile(&kernels.join("cuda/shim/driver.cpp"), &unfinished)?;
        std::fs::rename(&unfinished, &driver).map_err(|error| error.to_string())?;
    }
    Ok(driver)
}

#[expect(clippy::disallowed_methods, reason = "CXX names the compiler, as everywhere")]
fn compile(source: &Path, to: &Path) -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("the shim needs Linux".to_owned());
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler)
        .args([
            "-std=c++17",
            "-O2",
            "-ffp-contract=off",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
        ])
        .arg("-o")
        .arg(to)
        .arg(source)
        .output()
        .map_err(|error| {
            format!("no C++ compiler ('{compiler}': {error}); install g++, or name one in CXX")
        })?;
    // A compiler that rejects the kernels is a fault of the kernels.
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
