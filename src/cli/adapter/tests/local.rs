use super::{
    super::files::{convert, name_of, read, write},
    *,
};
use crate::adapter::{AdapterWeights, archive, folder::AdapterBytes};

fn weights(path: &Path) -> AdapterWeights {
    LoadedAdapter::from_bytes(read(path).unwrap(), None).unwrap().weights
}

#[test]
fn an_archive_is_inspected_like_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let zip = dir.path().join("sst2.zip");
    std::fs::write(&zip, archive::pack(&read(&golden("official/sst2")).unwrap())).unwrap();
    assert_eq!(inspect(&zip, false, None).unwrap(), inspect(&golden("official/sst2"), false, None).unwrap());
    assert_eq!(name_of(&zip).unwrap().as_str(), "sst2");
    let report = validate(&zip, None).unwrap();
    assert!(report.starts_with("ok: sst2 sha256:7ff71de10f2a"), "{report}");
}

#[test]
fn every_kind_converts_to_safetensors_of_the_same_content() {
    let dir = tempfile::tempdir().unwrap();
    for (at, path) in [
        "official/sst2",
        "adapters/t5-v1_0/dept-bin",
        "adapters/t5-v1_0/lowrank",
        "adapters/t5-v1_0/pt",
        "adapters/t5-v1_0/ptuning",
        "adapters/gpt2/dept",
        "adept/biased",
        "adept/unbiased",
    ]
    .into_iter()
    .enumerate()
    {
        let to = dir.path().join(at.to_string());
        let report = convert(&golden(path), &to, None).unwrap();
        let [was, is] = [golden(path).as_path(), &to].map(|folder| {
            let loaded = LoadedAdapter::from_bytes(read(folder).unwrap(), None).unwrap();
            loaded.into_generation("x".parse().unwrap()).version()
        });
        assert_eq!(was, is, "{path}");
        assert!(report.contains(&is.to_string()) && report.lines().count() == 1, "{report}");
        assert!(to.join("adapter_model.safetensors").is_file() && !to.join("adapter_model.bin").exists());
        // Once converted, a conversion changes no byte.
        let twice = dir.path().join(format!("{at}-twice"));
        convert(&to, &twice, None).unwrap();
        let [AdapterBytes { config, weights, .. }, again] = [&to, &twice].map(|folder| read(folder).unwrap());
        assert_eq!((config, weights), (again.config, again.weights), "{path}");
    }
}

#[test]
fn a_multitask_prompt_becomes_the_prompt_of_one_task() {
    let dir = tempfile::tempdir().unwrap();
    let (mpt, to) = (golden("adapters/t5-v1_1/mpt"), dir.path().join("task2"));
    let report = convert(&mpt, &to, Some(2)).unwrap();
    assert!(report.starts_with("pt sha256:") && report.contains("it was mpt sha256:"), "{report}");
    let task = LoadedAdapter::from_bytes(read(&mpt).unwrap(), Some(2)).unwrap().weights;
    assert_eq!(weights(&to), task);
}

#[test]
fn the_card_is_kept_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("deep/to"));
    let mut files = read(&golden("official/sst2")).unwrap();
    files.card = Some(b"max_tokens = 3 # as it was".to_vec());
    write(&files, &from).unwrap();
    convert(&from, &to, None).unwrap();
    assert_eq!(read(&to).unwrap().card, files.card);
    let error = convert(&from, &to, None).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    let error = convert(&golden("official/wic"), &dir.path().join("wic"), None).unwrap_err().to_string();
    assert!(error.contains("missing tensors"), "{error}");
    assert!(!dir.path().join("wic").exists());
}
