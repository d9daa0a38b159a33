use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    adapter::manifest::{Method, Task},
    telemetry::Metrics,
};

fn open(folder: &std::path::Path) -> Store {
    Store::open(&Location::Folder(folder.to_owned()), Metrics::default().store_faults).unwrap()
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.parse().unwrap(), name.parse().unwrap())
}

/// A pointer to one version, told apart by `digit`.
pub fn pointing(digit: char, blob: &str) -> Pointer {
    let version = StoredVersion {
        version: String::from(digit).repeat(64).parse().unwrap(),
        blob: blob.to_owned(),
        created_ms: 1_700_000_000_123,
        method: Method::Dept,
        task: Task::Seq2SeqLm,
        prompt_length: 2,
        rank: 1,
        max_length: Some(6),
        hidden: 4,
        parameters: 18,
        bytes: 72,
        card: json!({"description": "d"}),
    };
    Pointer::new(Entry::Adapter { versions: vec![version], pinned: false })
}

#[tokio::test]
async fn a_pointer_is_replaced_only_by_who_saw_its_last_state() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(folder.path()), open(folder.path()));
    let name = key("acme", "task");
    assert_eq!(one.read(&name).await.unwrap(), None);
    one.write(&name, &pointing('a', "x"), None).await.unwrap();
    assert!(matches!(two.write(&name, &pointing('b', "x"), None).await, Err(StoreError::Lost(_))));
    let (found, seen) = two.read(&name).await.unwrap().unwrap();
    assert_eq!(found, pointing('a', "x"));
    two.write(&name, &pointing('b', "longer"), Some(&seen)).await.unwrap();
    assert!(matches!(one.write(&name, &pointing('c', "x"), Some(&seen)).await, Err(StoreError::Lost(_))));
    assert!(matches!(one.delete(&name, &seen).await, Err(StoreError::Lost(_))));
    let (found, seen) = one.read(&name).await.unwrap().unwrap();
    assert_eq!(found, pointing('b', "longer"));
    one.delete(&name, &seen).await.unwrap();
    assert_eq!((two.read(&name).await.unwrap(), two.list().await.unwrap().len()), (None, 0));
}

#[tokio::test]
async fn names_are_listed_with_their_states_and_strangers_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for (namespace, name) in [("acme", "b"), ("shared", "a"), ("acme", "a")] {
        store.write(&key(namespace, name), &pointing('a', "x"), None).await.unwrap();
    }
    let names = folder.path().join(".store/v1/names");
    std::fs::write(names.join("acme/notes.txt"), "not a pointer").unwrap();
    std::fs::write(names.join("acme/UPPER.json"), "{}").unwrap();
    let mut listed = store.list().await.unwrap();
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    let keys: Vec<Key> = listed.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, [key("acme", "a"), key("acme", "b"), key("shared", "a")]);
    let (_, read) = store.read(&keys[0]).await.unwrap().unwrap();
    assert!(read.same(&listed[0].1), "a listing and a read see the same state");
}

#[tokio::test]
async fn a_blob_is_what_its_name_says_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let name = store.put_blob(Bytes::from_static(b"files")).await.unwrap();
    assert_eq!(store.put_blob(Bytes::from_static(b"files")).await.unwrap(), name);
    assert_eq!(store.get_blob(&name).await.unwrap(), "files");
    let path = folder.path().join(".store/v1/blobs/sha256").join(&name);
    std::fs::write(path, "fi1es").unwrap();
    let error = store.get_blob(&name).await.unwrap_err();
    assert!(error.to_string().contains("is damaged: its bytes have SHA-256"), "{error}");
    assert!(matches!(store.get_blob("none").await, Err(StoreError::Io(ObjectError::NotFound { .. }))));
}

#[tokio::test]
async fn what_is_no_pointer_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let name = key("acme", "task");
    store.write(&name, &pointing('a', "x"), None).await.unwrap();
    let path = folder.path().join(".store/v1/names/acme/task.json");
    let sound = std::fs::read_to_string(&path).unwrap();
    let (a, b) = ("a".repeat(64), "b".repeat(63));
    let cases = [
        (String::new(), "EOF"),
        (sound[..sound.len() / 2].to_owned(), "EOF"),
        (sound.replace("\"format\": 1", "\"format\": 2"), "format is 2, and this server knows 1"),
        (sound.replace(&a, &b), "not an adapter version"),
        (r#"{"format": 1, "kind": "adapter", "versions": [], "pinned": false}"#.to_owned(), "no versions"),
        (r#"{"format": 1, "kind": "link"}"#.to_owned(), "unknown variant"),
    ];
    for (json, said) in cases {
        std::fs::write(&path, &json).unwrap();
        let error = store.read(&name).await.unwrap_err().to_string();
        assert!(error.contains("task.json' is damaged") && error.contains(said), "{json}: {error}");
    }
}

#[tokio::test]
async fn blobs_without_a_name_go_when_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let kept = store.put_blob(Bytes::from_static(b"kept")).await.unwrap();
    let gone = store.put_blob(Bytes::from_static(b"gone")).await.unwrap();
    store.write(&key("acme", "task"), &pointing('a', &kept), None).await.unwrap();
    assert_eq!(store.collect(Duration::from_secs(3600)).await.unwrap(), 0, "nobody's yet");
    let old = SystemTime::now() - Duration::from_secs(7200);
    for name in [&kept, &gone] {
        let path = folder.path().join(".store/v1/blobs/sha256").join(name);
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(store.collect(Duration::from_secs(3600)).await.unwrap(), 1);
    assert!(store.get_blob(&kept).await.is_ok() && store.get_blob(&gone).await.is_err());
}

#[tokio::test]
async fn writers_at_the_same_moment_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let name = key("acme", "count");
    let writer = |store: Store, name: Key| async move {
        let mut lost = 0;
        for _ in 0..20 {
            loop {
                let seen = store.read(&name).await.unwrap();
                let (mut versions, stamp) = match seen {
                    Some((pointer, stamp)) => (pointer.versions().to_vec(), Some(stamp)),
                    None => (Vec::new(), None),
                };
                versions.extend(pointing('a', "x").versions().iter().cloned());
                let next = Pointer::new(Entry::Adapter { versions, pinned: false });
                match store.write(&name, &next, stamp.as_ref()).await {
                    Ok(_) => break,
                    Err(StoreError::Lost(_)) => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        lost
    };
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(writer(open(folder.path()), name.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (pointer, _) = open(folder.path()).read(&name).await.unwrap().unwrap();
    assert_eq!(pointer.versions().len(), 80);
}
