use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use super::support::{config, tensors, write_folder};
use crate::adapter::{LoadPathError, LoadRoot, LoadedAdapter};

fn adapter(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    write_folder(folder, &config(), &tensors(), None);
}

/// A root with adapters in it, one beside it, and links of all kinds.
fn place() -> (tempfile::TempDir, LoadRoot) {
    let place = tempfile::tempdir().unwrap();
    let at = |path: &str| place.path().join(path);
    for path in ["root/team/task", "root/.hidden/task", "outside", "root-evil/task", "root"] {
        adapter(&at(path));
    }
    symlink(at("outside"), at("root/link")).unwrap();
    symlink("../outside", at("root/relative")).unwrap();
    symlink("relative", at("root/chain")).unwrap();
    symlink("..", at("root/up")).unwrap();
    symlink("loop", at("root/loop")).unwrap();
    symlink("team", at("root/alias")).unwrap();
    symlink(".hidden", at("root/current")).unwrap();
    fs::create_dir_all(at("root/files")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        symlink(at("outside").join(file), at("root/files").join(file)).unwrap();
    }
    fs::write(at("root/file"), "").unwrap();
    adapter(&at("root/pipe"));
    fs::remove_file(at("root/pipe/adapter_config.json")).unwrap();
    let made = Command::new("mkfifo").arg(at("root/pipe/adapter_config.json")).status().unwrap();
    assert!(made.success());
    let root = LoadRoot::open(&at("root")).unwrap();
    (place, root)
}

#[test]
fn a_folder_below_the_root_is_read() {
    let (place, root) = place();
    let whole = place.path().join("root/team/task");
    let paths = ["team/task", "./team//task/", "alias/task", "current/task", whole.to_str().unwrap()];
    for path in paths {
        let files = root.read(path, usize::MAX).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(LoadedAdapter::from_bytes(files, None).is_ok(), "{path}");
    }
}

#[test]
fn nothing_else_is() {
    let (place, root) = place();
    let at = |path: &str| place.path().join(path).to_str().unwrap().to_owned();
    let long = "a/".repeat(3000);
    let outside = [
        "",
        ".",
        "./",
        "/",
        "/etc",
        "..",
        "../outside",
        "team/../../outside",
        "team/../task",
        "team/task/..",
        "./../outside",
        ".hidden/task",
        "team/.x",
        "link",
        "relative",
        "chain",
        "up/outside",
        "link/..",
        "up",
        "team\0/task",
        &long,
        &at("outside"),
        &at("root"),
        &at("root-evil/task"),
        &at("root/../outside"),
        &at("root/team/../../outside"),
        &at("root/link"),
        "//etc",
        "~/..",
    ];
    for path in outside {
        let error = root.read(path, usize::MAX).unwrap_err();
        assert!(matches!(error, LoadPathError::Outside(_)), "{path}: {error}");
    }
    for path in
        ["none", "team/none", "file", "file/task", "~", "%2e%2e/outside", "..%2foutside", "...", "team\\task"]
    {
        let error = root.read(path, usize::MAX).unwrap_err();
        let hidden = path.starts_with('.');
        let expected = if hidden {
            matches!(error, LoadPathError::Outside(_))
        } else {
            matches!(error, LoadPathError::Missing(_))
        };
        assert!(expected, "{path}: {error}");
    }
    assert!(matches!(root.read("loop", usize::MAX), Err(LoadPathError::Io { .. })));
}

#[test]
fn unsound_files_are_said_so_without_the_roots_place() {
    let (place, root) = place();
    let cases = [
        ("files", "is a link out of the adapter's folder"),
        ("pipe", "'pipe/adapter_config.json' is not a regular file"),
        ("team", "'team/adapter_config.json' is missing"),
    ];
    for (path, said) in cases {
        let error = root.read(path, usize::MAX).unwrap_err();
        assert!(matches!(&error, LoadPathError::Unsound(text) if text.contains(said)), "{path}: {error}");
        assert!(!error.to_string().contains(place.path().to_str().unwrap()), "{error}");
    }
    let error = root.read("team/task", 10).unwrap_err();
    assert!(
        matches!(&error, LoadPathError::TooLarge(text) if text.contains("at most 10 are read")),
        "{error}"
    );
}

#[test]
fn a_root_is_a_folder() {
    let (place, _) = place();
    assert!(LoadRoot::open(&place.path().join("none")).is_err());
    assert!(LoadRoot::open(&place.path().join("root/file")).is_err());
}
