use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

/// Where the model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The first GPU where this build and this machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|ordinal| ordinal.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "write auto, cpu or cuda:N".into()),
        }
    }
}

/// An address that may be left closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// It is listened on.
    At(SocketAddr),
    /// There is none.
    Off,
}

impl Door {
    /// The address, where there is one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| "write an address with its port, or off".into()),
        }
    }
}

/// A folder that may be done without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shelf {
    /// It is used, and made where it is not there.
    In(PathBuf),
    /// There is none.
    Off,
}

impl Shelf {
    /// The folder, where there is one.
    pub fn folder(self) -> Option<PathBuf> {
        match self {
            Self::In(folder) => Some(folder),
            Self::Off => None,
        }
    }
}

impl FromStr for Shelf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("write a folder, or off".into()),
            "off" => Ok(Self::Off),
            folder => Ok(Self::In(folder.into())),
        }
    }
}

/// The number format that the weights are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Dtype {
    /// On the CPU as the model's file has them: 4 or 8 bits, or floats of 16 or 32, which compute in f32. On a GPU bf16.
    #[default]
    Auto,
    /// Exact: everything computes in f32. Weights of 4 or 8 bits are held in 32; floats on the CPU stay as the file has them.
    F32,
    /// As `auto`, but block formats of GGUF meet activations of 15 bits in place of 8: nearly f32's results, for up to twice the
    /// time; on the CPU.
    Fine,
    /// 8-bit integers with a scale for each output channel: fast, on the CPU.
    I8,
    /// 16-bit floats with the range of 32: on a GPU, and what `auto` is there.
    Bf16,
}

impl Dtype {
    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fine => "fine",
            Self::F32 => "f32",
            Self::I8 => "i8",
            Self::Bf16 => "bf16",
        }
    }
}

/// The number format that keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum KvCacheDtype {
    /// On the CPU f16 beside weights of 8 bits or fewer, else f32; on a GPU as the weights.
    #[default]
    Auto,
    /// 32-bit floats, as they are computed; on the CPU.
    F32,
    /// 16-bit floats: half the memory, and less to read in every step; on the CPU.
    F16,
}

impl KvCacheDtype {
    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

/// The instruction set of linear maps on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CpuIsa {
    /// The fastest that the machine has.
    #[default]
    Auto,
    /// AMX's tiles of int8 products, with AVX-512.
    Amx,
    /// AVX-512 with VNNI.
    Avx512,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// Plain code, for any machine.
    Portable,
}

impl CpuIsa {
    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// Splits `12MiB` into 12 and `MiB`.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// A size in bytes: `1048576`, `512KiB`, `1MiB`, `2GiB`, or in thousands `1MB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let scale = |unit: &str| {
        Some(match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return None,
        })
    };
    split(text)
        .and_then(|(number, unit)| number.checked_mul(scale(unit)?))
        .ok_or_else(|| "write a size like 1048576, 512KiB, 64MiB or 2GiB".into())
}

/// A time: `500ms`, `30s`, `5m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let scale = |unit: &str| match unit {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    split(text)
        .and_then(|(number, unit)| number.checked_mul(scale(unit)?))
        .map(Duration::from_millis)
        .ok_or_else(|| "write a time like 500ms, 30s or 5m".into())
}

/// The origin of web pages as browsers write it (`https://app.example`, `http://localhost:3000`), or `*`.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let legal = |rest: &str| {
        let host = rest.split(':').next().unwrap_or_default();
        !host.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"/?#@*,\"'".contains(&b) && !b.is_ascii_uppercase())
    };
    match text.split_once("://") {
        Some(("http" | "https", rest)) if legal(rest) => Ok(text.to_owned()),
        _ if text == "*" => Ok(text.to_owned()),
        _ => Err("write an origin like https://app.example, in small letters and with no path, or *".into()),
    }
}

/// A whole number from 1 to 2^24: far above any use, far below where sums of products overflow.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let legal = |n: &usize| (1..=1 << 24).contains(n);
    text.parse().ok().filter(legal).ok_or_else(|| "write a whole number from 1 to 16777216".into())
}
