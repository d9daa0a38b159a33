//! What several clients can do to each other, or one to the server.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::adapter::residency::{LoadError, Residence};

/// A look at the store that began before an upload must not take up what it saw after it, nor drop the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_is_current_whoever_looks_at_the_store_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let done = Arc::new(AtomicBool::new(false));
    let looks: Vec<_> = (0..3)
        .map(|_| {
            let (catalogue, done) = (catalogue.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(Ordering::Acquire) {
                    catalogue.refresh().await.unwrap();
                }
            })
        })
        .collect();
    for number in 0..300 {
        let what = format!("task-{}", number % 7);
        let space = home("a");
        if number >= 7 && number % 3 == 0 {
            catalogue.delete(&space, &name(&what), false, Precondition::None).await.unwrap();
            let left = catalogue.known(&tenant("a"), &wanted(&what));
            assert!(left.is_err(), "{number}: it was deleted, and is there");
        }
        put(&catalogue, &space, &what, number as f32).await;
        for _ in 0..5 {
            tokio::task::yield_now().await;
            let known = catalogue.known(&tenant("a"), &wanted(&what)).unwrap();
            assert_eq!(known.version.version, version_of(files(number as f32, 2)), "{number}");
        }
    }
    done.store(true, Ordering::Release);
    for look in looks {
        look.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_is_answered_with_its_own_version() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let catalogue = catalogue.clone();
            tokio::spawn(async move {
                for round in 0..25 {
                    let number = (writer * 100 + round) as f32;
                    let (space, task) = (home("a"), name("task"));
                    let put = catalogue.put(&space, &task, files(number, 2), Precondition::None).await;
                    let found = put.unwrap().found;
                    assert_eq!(found.version.version, version_of(files(number, 2)));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// An alias and a deletion at the same moment: one of them comes first, and the other is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_alias_never_stands_for_what_was_deleted_under_it() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let (space, task, live) = (home("a"), name("task"), name("live"));
    for round in 0..60 {
        put(&catalogue, &space, "task", round as f32).await;
        let (one, two) = (catalogue.clone(), catalogue.clone());
        let (own, target, alias) = (space.clone(), wanted("task"), live.clone());
        let setting =
            tokio::spawn(async move { one.set_alias(&own, &alias, &target, Precondition::None).await });
        let (own, gone) = (space.clone(), task.clone());
        let deleting = tokio::spawn(async move { two.delete(&own, &gone, false, Precondition::None).await });
        let (set, deleted) = (setting.await.unwrap(), deleting.await.unwrap());
        assert_ne!(set.is_ok(), deleted.is_ok(), "{round}: {set:?} {deleted:?}");
        if set.is_ok() {
            assert_eq!(value(&catalogue, "a", "live").await, Ok(round as f32));
            catalogue.delete(&space, &live, true, Precondition::None).await.unwrap();
            catalogue.delete(&space, &task, false, Precondition::None).await.unwrap();
        }
    }
    assert!(catalogue.inner.aliases.is_empty() && catalogue.is_empty());
}

/// The bytes of everything in the store.
fn stored(root: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Cards so large that the versions of a name would be more than can be read again.
#[tokio::test]
async fn a_name_that_is_full_takes_no_more_and_stays_readable() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let large = |number: usize| {
        // Each quote takes two bytes in JSON.
        let card = format!("description = '{number}{}'\n", "\"".repeat(250_000));
        AdapterBytes { card: Some(card.into_bytes()), ..files(number as f32, 2) }
    };
    let mut number = 0;
    let (before, refused) = loop {
        let before = stored(root.path());
        let put = catalogue.put(&home("a"), &name("task"), large(number), Precondition::None).await;
        match put {
            Ok(_) => number += 1,
            Err(error) => break (before, error.to_string()),
        }
        assert!(number < 100, "it never fills");
    };
    assert!(refused.contains("the versions of 'task' and their cards would take"), "{refused}");
    assert!(number > 3);
    assert_eq!(stored(root.path()), before, "a refused upload leaves nothing behind");
    let again = open(root.path()).await;
    assert_eq!(value(&again, "a", "task").await, Ok((number - 1) as f32));
    let oldest = version_of(large(0)).hex().parse().unwrap();
    again.delete_version(&home("a"), &name("task"), &oldest, Precondition::None).await.unwrap();
    put(&again, &home("a"), "task", 77.0).await;
    assert_eq!(value(&again, "a", "task").await, Ok(77.0));
}

#[tokio::test]
async fn what_one_tenant_pins_leaves_the_others_room() {
    let root = tempfile::tempdir().unwrap();
    // Four adapters fit, so two may be pinned.
    let catalogue = open_with(config(root.path(), 1024, NEVER)).await;
    for number in 0..3 {
        put(&catalogue, &home("a"), &format!("task-{number}"), number as f32).await;
    }
    put(&catalogue, &home("b"), "other", 9.0).await;
    let pin = async |what: &str, pinned| {
        catalogue.set_pinned(&home("a"), &name(what), pinned, Precondition::None).await
    };
    assert!(pin("task-0", true).await.unwrap().resident == Residence::Host);
    assert!(pin("task-1", true).await.unwrap().resident == Residence::Host);
    let refused = pin("task-2", true).await.unwrap_err();
    assert!(
        matches!(refused, CatalogueError::Load(LoadError::PinsFull { bytes: 768, most: 512, .. })),
        "{refused}"
    );
    let found = catalogue.find(&tenant("a"), &wanted("task-2")).await.unwrap();
    assert!(!found.pinned, "nothing was written");
    assert_eq!(value(&catalogue, "b", "other").await, Ok(9.0));
    pin("task-0", false).await.unwrap();
    assert!(pin("task-2", true).await.unwrap().pinned);
    // A new version takes the place of the old one among the pinned.
    put(&catalogue, &home("a"), "task-2", 7.0).await;
    catalogue.delete(&home("a"), &name("task-1"), false, Precondition::None).await.unwrap();
    assert!(pin("task-0", true).await.unwrap().pinned);
    let (space, task) = (home("a"), name("task-2"));
    let former = Precondition::Is(version_of(files(2.0, 2)));
    let stale = catalogue.set_pinned(&space, &task, false, former).await;
    assert!(matches!(stale, Err(CatalogueError::Precondition { .. })));
}

/// A load whose clients have all gone fails for them alone.
#[tokio::test]
async fn a_failure_is_told_to_those_who_asked_and_to_nobody_later() {
    let residency = Residency::new(1 << 20, Arc::default());
    let key: ResidentKey = (home("a"), name("task"), version_of(files(1.0, 2)));
    let (fail, failing) = tokio::sync::oneshot::channel::<()>();
    let broken = async move {
        failing.await.ok();
        Err(LoadError::Failed { name: name("task"), reason: "the first one".into() })
    };
    let asked = residency.acquire(&key, 32, broken);
    // The client asks and gives up.
    assert!(futures::FutureExt::now_or_never(asked).is_none());
    fail.send(()).unwrap();
    let generation = || LoadedAdapter::from_bytes(files(1.0, 2), None).unwrap().into_generation(name("task"));
    while residency.is_loading(&key) {
        tokio::task::yield_now().await;
    }
    let sound = async move { Ok(generation()) };
    assert_eq!(residency.acquire(&key, 32, sound).await.unwrap().weights().prompt().data()[0], 1.0);
}

/// Nobody keeps the store busy with versions that are not there.
#[tokio::test]
async fn an_unknown_version_is_looked_for_once_in_a_while() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (open(root.path()).await, open(root.path()).await);
    put(&one, &home("a"), "task", 1.0).await;
    assert_eq!(value(&two, "a", "task").await, Ok(1.0));
    let version = |number: f32| format!("task@{}", version_of(files(number, 2)).hex());
    assert!(value(&two, "a", &version(2.0)).await.is_err());
    put(&one, &home("a"), "task", 3.0).await;
    assert!(value(&two, "a", &version(3.0)).await.is_err(), "asked a moment ago");
    two.refresh().await.unwrap();
    assert_eq!(value(&two, "a", &version(3.0)).await, Ok(3.0));
}
