//! What is in memory: more adapters than fit, one that many ask for, swaps under readers.

use std::collections::HashSet;

use super::*;
use crate::adapter::residency::Residence;

#[tokio::test]
async fn a_crowd_over_more_adapters_than_fit_is_served_in_turn() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path()).await;
    for number in 0..40 {
        put(&first, &home("a"), &format!("task-{number}"), number as f32).await;
    }
    // An adapter is 2 x 4 numbers and takes a unit of 256 bytes: four fit.
    let metrics = Arc::new(Metrics::default());
    let small = config(root.path(), 1024, NEVER);
    let (catalogue, _) = Catalogue::open(small, Arc::clone(&metrics)).await.unwrap();
    let ask = |number: usize| {
        let catalogue = catalogue.clone();
        tokio::spawn(async move {
            let lease = catalogue.acquire(&tenant("a"), &wanted(&format!("task-{number}"))).await.unwrap();
            tokio::task::yield_now().await;
            lease.weights().prompt().data()[0]
        })
    };
    let asked: Vec<_> = (0..200).map(|at| (at % 40, ask(at % 40))).collect();
    for (number, answer) in asked {
        assert_eq!(answer.await.unwrap(), number as f32);
    }
    let loads = metrics.adapter_loads.ok.get();
    assert!((40..=200).contains(&loads), "{loads} loads");
    assert!(metrics.adapters.host.get() <= 4 && metrics.adapter_bytes.host.get() <= 1024);
    assert!(metrics.adapter_evictions.host.get() >= 36);
    let large = catalogue.put(&home("a"), &name("large"), files(1.0, 100), Precondition::None).await.unwrap();
    assert_eq!(large.found.resident, Residence::Store);
    let error = value(&catalogue, "a", "large").await.unwrap_err();
    assert!(error.contains("takes 1600 bytes and --adapter-host-bytes is 1024"), "{error}");
}

#[tokio::test]
async fn many_who_ask_for_one_adapter_load_it_once_and_pins_stay() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path()).await;
    for number in 0..9 {
        put(&first, &home("a"), &format!("task-{number}"), number as f32).await;
    }
    let pinned = first.set_pinned(&home("a"), &name("task-0"), true, Precondition::None).await.unwrap();
    assert!(pinned.pinned && pinned.resident == Residence::Host);
    let metrics = Arc::new(Metrics::default());
    let (catalogue, _) =
        Catalogue::open(config(root.path(), 1024, NEVER), Arc::clone(&metrics)).await.unwrap();
    assert_eq!(metrics.adapter_loads.ok.get(), 1, "the pinned one is there from the start");
    let ask = |_| {
        let catalogue = catalogue.clone();
        tokio::spawn(async move { value(&catalogue, "a", "task-1").await })
    };
    for asked in (0..50).map(ask).collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), Ok(1.0));
    }
    assert_eq!(metrics.adapter_loads.ok.get(), 2);
    for _ in 0..3 {
        for number in 1..9 {
            assert_eq!(value(&catalogue, "a", &format!("task-{number}")).await, Ok(number as f32));
        }
    }
    let loads = metrics.adapter_loads.ok.get();
    assert_eq!(value(&catalogue, "a", "task-0").await, Ok(0.0));
    assert_eq!(metrics.adapter_loads.ok.get(), loads, "the pinned one was never let go");
}

#[tokio::test]
async fn pinned_adapters_that_can_not_be_held_are_told_until_they_can() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path()).await;
    for number in 0..3 {
        let task = format!("task-{number}");
        put(&first, &home("a"), &task, number as f32).await;
        first.set_pinned(&home("a"), &name(&task), true, Precondition::None).await.unwrap();
    }
    let (blobs, away) = (root.path().join(".store/v1/blobs"), root.path().join("away"));
    std::fs::rename(&blobs, &away).unwrap();
    let metrics = Arc::new(Metrics::default());
    let counts = || {
        let text = metrics.render();
        let count = |reason: &str| {
            let start = format!("dept_adapter_pins_missing{{reason=\"{reason}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok())
        };
        [count("error"), count("capacity")].map(Option::unwrap)
    };
    let (catalogue, _) =
        Catalogue::open(config(root.path(), 1024, NEVER), Arc::clone(&metrics)).await.unwrap();
    catalogue.load_pinned().await;
    assert_eq!(counts(), [3, 0], "what can't be loaded gives its share back, so that all are tried");
    let since = metrics.missing_pins.standing();
    catalogue.load_pinned().await;
    assert_eq!(metrics.missing_pins.standing(), since, "it has been so all the time");
    std::fs::rename(&away, &blobs).unwrap();
    catalogue.store().unwrap().probe().await;
    catalogue.load_pinned().await;
    assert_eq!(counts(), [0, 1], "half of the memory is two adapters");
    assert_eq!(metrics.adapters.host.get(), 2);
    first.set_pinned(&home("a"), &name("task-0"), false, Precondition::None).await.unwrap();
    catalogue.refresh().await.unwrap();
    assert!(catalogue.lacks_pinned());
    catalogue.load_pinned().await;
    assert_eq!((counts(), metrics.missing_pins.standing()), ([0, 0], Vec::new()));
    assert!(!catalogue.lacks_pinned());
}

#[tokio::test]
async fn who_waits_for_the_pinned_goes_on_once_all_are_held() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path()).await;
    for task in ["one", "two"] {
        put(&first, &home("a"), task, 1.0).await;
        first.set_pinned(&home("a"), &name(task), true, Precondition::None).await.unwrap();
    }
    let blobs = root.path().join(".store/v1/blobs");
    std::fs::rename(&blobs, root.path().join("away")).unwrap();
    let quick = config(root.path(), 1024, Duration::from_millis(1));
    let (catalogue, _) = Catalogue::open(quick, Arc::default()).await.unwrap();
    let waiting = catalogue.hold_pinned();
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending(), "neither can be had");
    std::fs::rename(root.path().join("away"), &blobs).unwrap();
    waiting.await;
    for task in ["one", "two"] {
        let found = catalogue.find(&tenant("a"), &wanted(task)).await.unwrap();
        assert_eq!(found.resident, Residence::Host, "{task}");
    }
}

/// Every request gets one whole version, whatever is published meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_swaps_mix_nothing() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    put(&catalogue, &home("a"), "task", 0.0).await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (catalogue, done) = (catalogue.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut seen, mut last) = (0_u64, 0.0);
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    let lease = catalogue.acquire(&tenant("a"), &wanted("task")).await.unwrap();
                    let data = lease.weights().prompt().data();
                    tokio::task::yield_now().await;
                    assert!(data.iter().all(|number| *number == data[0]), "one version's numbers only");
                    assert!(data[0] >= last, "what was current is not current again");
                    (seen, last) = (seen + 1, data[0]);
                }
                seen
            })
        })
        .collect();
    for number in 1..=1000 {
        assert_eq!(put(&catalogue, &home("a"), "task", number as f32).await, Change::Updated);
        tokio::task::yield_now().await;
    }
    done.store(true, std::sync::atomic::Ordering::Release);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_eq!(catalogue.versions(&tenant("a"), &name("task")).await.unwrap().len(), 10);
}

/// Keys of everything in memory are told apart by version: the same content under two names is two.
#[tokio::test]
async fn equal_content_under_two_names_is_two_adapters() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    put(&catalogue, &home("a"), "one", 1.0).await;
    put(&catalogue, &home("a"), "two", 1.0).await;
    let mut ids = HashSet::new();
    for what in ["one", "two"] {
        let lease = catalogue.acquire(&tenant("a"), &wanted(what)).await.unwrap();
        assert_eq!(lease.name().as_str(), what);
        assert!(ids.insert(lease.id()));
    }
}
