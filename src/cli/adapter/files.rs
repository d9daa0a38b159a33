//! An adapter's files on this machine: a folder or an archive to read, a folder to write.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use crate::{
    adapter::{
        LoadedAdapter,
        archive::{self, Limits},
        folder::{self, AdapterBytes, CARD_FILE, CONFIG_FILE},
    },
    domain::AdapterName,
};

/// Reads a folder, a .zip or a .tar.gz.
pub(super) fn read(source: &Path) -> anyhow::Result<AdapterBytes> {
    if source.is_dir() {
        return Ok(folder::read_files(source)?.0);
    }
    let limits = Limits::default();
    let length = fs::metadata(source).with_context(|| format!("'{}' can't be read", source.display()))?.len();
    ensure!(
        length <= limits.bytes,
        "'{}' has {length} bytes, at most {} are read",
        source.display(),
        limits.bytes
    );
    let bytes = fs::read(source).with_context(|| format!("'{}' can't be read", source.display()))?;
    archive::read(&bytes, &limits).with_context(|| format!("'{}' is refused", source.display()))
}

/// The adapter's name by its path: the folder's, or the archive's without its ending.
pub(super) fn name_of(source: &Path) -> anyhow::Result<AdapterName> {
    let real = source.canonicalize().with_context(|| format!("'{}' can't be read", source.display()))?;
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem =
        [".zip", ".tar.gz", ".tgz"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    stem.parse().with_context(|| format!("'{stem}' can't name an adapter: say --name"))
}

/// Writes an adapter's files into a new folder, all of them or none.
pub(super) fn write(files: &AdapterBytes, folder: &Path) -> anyhow::Result<()> {
    ensure!(
        !folder.exists(),
        "'{}' is there already: name a folder that is not, or remove it",
        folder.display()
    );
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let Some(name) = folder.file_name() else { bail!("'{}' names no folder", folder.display()) };
    let failed = |path: &Path| format!("'{}' can't be written", path.display());
    fs::create_dir_all(parent).with_context(|| failed(parent))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let partial = Partial(parent.join(hidden));
    fs::create_dir(&partial.0).with_context(|| failed(&partial.0))?;
    let weights = (files.format.file_name(), Some(&files.weights));
    for (name, bytes) in [(CONFIG_FILE, Some(&files.config)), weights, (CARD_FILE, files.card.as_ref())] {
        let Some(bytes) = bytes else { continue };
        fs::write(partial.0.join(name), bytes).with_context(|| failed(&folder.join(name)))?;
    }
    fs::rename(&partial.0, folder).with_context(|| failed(folder))
}

/// A folder that is removed again unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Rewrites an adapter in the canonical form and says what became of it.
pub(super) fn convert(source: &Path, folder: &Path, task_id: Option<usize>) -> anyhow::Result<String> {
    let files = read(source)?;
    let card = files.card.clone();
    let found = LoadedAdapter::from_bytes(files, task_id)?;
    let canonical = found.canonical(card)?;
    let again = LoadedAdapter::from_bytes(canonical.clone(), None)
        .context("what was to be written does not read back")?;
    ensure!(
        again.weights == found.weights,
        "what was to be written reads back as something else: this is a bug"
    );
    write(&canonical, folder)?;
    let name: AdapterName = "converted".parse()?;
    let (method, was) = (again.manifest.method, found.manifest.method);
    let [was_version, version] = [found, again].map(|loaded| loaded.into_generation(name.clone()).version());
    let mut report = format!("{method} {version} in {}\n", folder.display());
    if version != was_version {
        report += &format!("it was {was} {was_version}: one task of a multitask prompt is a prompt\n");
    }
    Ok(report)
}
