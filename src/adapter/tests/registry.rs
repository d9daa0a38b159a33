use std::{fs, time::SystemTime};

use serde_json::json;

use super::{
    super::{
        BackboneShape, Card, Generation, Registry, RegistryError, Task,
        registry::{KEPT_GENERATIONS, ScanError},
    },
    support::{config, config_with, load, says, tensors, write_folder},
};
use crate::domain::AdapterRef;

fn backbone() -> BackboneShape {
    BackboneShape {
        hidden: 4,
        task: Task::Seq2SeqLm,
        name: "tiny-t5".into(),
        fingerprint: Some("sha256:aa".into()),
    }
}

/// A generation whose content is told apart by `mark`.
fn generation(name: &str, mark: u32) -> Generation {
    let loaded = load(&config(), &tensors()).unwrap();
    let card = Card { max_tokens: Some(mark + 1), ..Card::default() };
    Generation::new(name.parse().unwrap(), loaded.manifest, loaded.weights, card, SystemTime::UNIX_EPOCH)
}

fn wanted(text: &str) -> AdapterRef {
    text.parse().unwrap()
}

#[test]
fn a_lease_outlives_swaps_and_removal() {
    let registry = Registry::new(backbone());
    let first = registry.publish(generation("a", 0)).unwrap();
    let lease = registry.acquire(&wanted("a")).unwrap();
    let second = registry.publish(generation("a", 1)).unwrap();
    assert_eq!(registry.acquire(&wanted("a")).unwrap().version(), second.version());
    let pinned = registry.acquire(&wanted(&format!("a@{}", first.version()))).unwrap();
    assert!(pinned.same(&lease));
    assert_eq!(registry.remove(&"a".parse().unwrap()).unwrap().version(), second.version());
    assert_eq!((lease.version(), lease.weights().rank()), (first.version(), 3));
    assert!(registry.is_empty());
    says(registry.acquire(&wanted("a")), &["no adapter 'a'", "0 adapters are loaded"]);
}

#[test]
fn the_last_generations_are_kept_and_leased_ones_beyond_them() {
    let registry = Registry::new(backbone());
    let versions: Vec<_> = (0..KEPT_GENERATIONS as u32 + 2)
        .map(|mark| {
            let version = registry.publish(generation("a", mark)).unwrap().version();
            (version, (mark == 0).then(|| registry.acquire(&wanted("a")).unwrap()))
        })
        .collect();
    let pin = |at: usize| registry.acquire(&wanted(&format!("a@{}", &versions[at].0.hex()[..12])));
    assert!(pin(0).is_ok(), "it is leased");
    says(pin(1), &["no version", "current one is sha256:"]);
    assert!((2..versions.len()).all(|at| pin(at).is_ok()));
    assert_eq!(registry.versions(&"a".parse().unwrap()).unwrap().len(), KEPT_GENERATIONS + 1);
    drop(versions.into_iter().next());
    assert_eq!(registry.versions(&"a".parse().unwrap()).unwrap().len(), KEPT_GENERATIONS);
}

#[test]
fn the_same_content_is_one_generation() {
    let registry = Registry::new(backbone());
    let first = registry.publish(generation("a", 0)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &registry.publish(generation("a", 0)).unwrap()));
    registry.publish(generation("a", 1)).unwrap();
    // Rolling back takes up the old generation itself.
    assert!(std::sync::Arc::ptr_eq(&first, &registry.publish(generation("a", 0)).unwrap()));
    assert_eq!(registry.versions(&"a".parse().unwrap()).unwrap().len(), 2);
    assert_eq!(registry.get(&"a".parse().unwrap()).unwrap().version(), first.version());
}

#[test]
fn what_does_not_fit_the_backbone_is_refused() {
    let publish = |shape: BackboneShape, name: &str| Registry::new(shape).publish(generation(name, 0));
    let model = publish(backbone(), "tiny-t5");
    assert!(matches!(model, Err(RegistryError::ModelName(_))));
    says(publish(BackboneShape { hidden: 512, ..backbone() }, "a"), &["hidden size of 4", "tiny-t5", "512"]);
    says(
        publish(BackboneShape { task: Task::CausalLm, ..backbone() }, "a"),
        &["task_type SEQ_2_SEQ_LM", "served as CAUSAL_LM"],
    );
    let with_fingerprint = |fingerprint: &str| {
        let loaded = load(&config(), &tensors()).unwrap();
        let card = Card::parse(format!("base = {{ fingerprint = '{fingerprint}' }}").as_bytes()).unwrap();
        Generation::new("a".parse().unwrap(), loaded.manifest, loaded.weights, card, SystemTime::UNIX_EPOCH)
    };
    let registry = Registry::new(backbone());
    says(registry.publish(with_fingerprint("sha256:bb")), &["fingerprint sha256:bb", "has sha256:aa"]);
    assert!(registry.publish(with_fingerprint("sha256:aa")).is_ok());
    let unknown = Registry::new(BackboneShape { fingerprint: None, ..backbone() });
    assert!(unknown.publish(with_fingerprint("sha256:bb")).is_ok());
}

#[test]
fn a_scan_takes_what_is_sound_and_reports_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| root.path().join(name);
    for name in ["b", "a", ".hidden", "tiny-t5", "Upper"] {
        write_folder(&folder(name), &config(), &tensors(), None);
    }
    write_folder(&folder("wide"), &config_with(json!({ "token_dim": 8 })), &tensors(), None);
    fs::create_dir(folder("empty")).unwrap();
    fs::write(folder("README.md"), "not an adapter").unwrap();
    let (registry, failures) = Registry::scan(root.path(), backbone()).unwrap();
    let names: Vec<_> = registry.list().iter().map(|generation| generation.name().to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    let failed: Vec<_> =
        failures.iter().map(|f| (f.path.file_name().unwrap().to_str().unwrap(), &f.error)).collect();
    assert!(
        matches!(
            failed.as_slice(),
            [
                ("Upper", ScanError::Name(_)),
                ("empty", ScanError::Folder(_)),
                ("tiny-t5", ScanError::Registry(RegistryError::ModelName(_))),
                ("wide", ScanError::Folder(_)),
            ]
        ),
        "{failed:?}"
    );

    let first = registry.get(&"a".parse().unwrap()).unwrap();
    write_folder(&folder("b"), &config_with(json!({ "lora_alpha": 16 })), &tensors(), None);
    let before = registry.get(&"b".parse().unwrap()).unwrap();
    assert_eq!(registry.rescan(root.path()).unwrap().len(), 4);
    assert!(std::sync::Arc::ptr_eq(&first, &registry.get(&"a".parse().unwrap()).unwrap()));
    assert_ne!(before.version(), registry.get(&"b".parse().unwrap()).unwrap().version());
    assert!(Registry::scan(&folder("nowhere"), backbone()).is_err());
}

#[cfg(unix)]
#[test]
fn a_scan_does_not_follow_links_out_of_the_root() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    write_folder(elsewhere.path(), &config(), &tensors(), None);
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("a")).unwrap();
    let (registry, failures) = Registry::scan(root.path(), backbone()).unwrap();
    assert!(registry.is_empty());
    assert!(matches!(failures[0].error, ScanError::Outside));
}

#[test]
fn readers_see_one_generation_or_the_other_while_it_is_swapped() {
    let registry = Registry::new(backbone());
    registry.publish(generation("a", 0)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (1..200).for_each(|mark| drop(registry.publish(generation("a", mark)).unwrap())));
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let lease = registry.acquire(&wanted("a")).unwrap();
                    assert_eq!(lease.weights().parameters(), 35);
                }
            });
        }
    });
    assert_eq!(registry.get(&"a".parse().unwrap()).unwrap().card().max_tokens, Some(200));
}
