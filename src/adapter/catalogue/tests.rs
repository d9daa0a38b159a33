mod attacks;
mod faults;

use std::{collections::HashSet, path::Path};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    adapter::{
        archive,
        folder::{AdapterBytes, LoadedAdapter},
        manifest::Task,
        tensor_file::WeightsFormat,
    },
    domain::Version,
};

/// The files of a soft prompt whose every number is `value`, with m rows of width 4.
pub fn files(value: f32, m: usize) -> AdapterBytes {
    let config = json!({"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": m,
                        "token_dim": 4, "num_transformer_submodules": 1});
    let data: Vec<u8> = std::iter::repeat_n(value, 4 * m).flat_map(f32::to_le_bytes).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![m, 4], &data).unwrap();
    let weights = safetensors::serialize([("prompt_embeddings", view)], None).unwrap();
    AdapterBytes {
        config: config.to_string().into(),
        format: WeightsFormat::Safetensors,
        weights,
        card: None,
    }
}

fn version_of(files: AdapterBytes) -> Version {
    LoadedAdapter::from_bytes(files, None).unwrap().into_generation("x".parse().unwrap()).version()
}

fn config(root: &Path, host_bytes: u64, interval: Duration) -> CatalogueConfig {
    let backbone = BackboneShape { hidden: 4, task: Task::Seq2SeqLm, name: "tiny".into(), fingerprint: None };
    CatalogueConfig { location: Some(Location::Folder(root.to_owned())), backbone, host_bytes, interval }
}

const NEVER: Duration = Duration::from_secs(3600);

async fn open(root: &Path) -> Catalogue {
    open_with(config(root, 1 << 20, NEVER)).await
}

async fn open_with(config: CatalogueConfig) -> Catalogue {
    Catalogue::open(config, Arc::default()).await.unwrap().0
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn home(name: &str) -> Namespace {
    Namespace::home(&tenant(name))
}

fn name(text: &str) -> AdapterName {
    text.parse().unwrap()
}

fn wanted(text: &str) -> AdapterRef {
    text.parse().unwrap()
}

/// The number that an adapter holds.
async fn value(catalogue: &Catalogue, who: &str, what: &str) -> Result<f32, String> {
    let lease = catalogue.acquire(&tenant(who), &wanted(what)).await.map_err(|error| error.to_string())?;
    Ok(lease.weights().prompt().data()[0])
}

async fn put(catalogue: &Catalogue, namespace: &Namespace, what: &str, number: f32) -> Change {
    let put = catalogue.put(namespace, &name(what), files(number, 2), Precondition::None).await;
    put.unwrap().change
}

#[tokio::test]
async fn an_upload_is_served_at_once_and_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    assert_eq!(put(&catalogue, &home("a"), "task", 1.0).await, Change::Created);
    let former = catalogue.acquire(&tenant("a"), &wanted("task")).await.unwrap();
    assert_eq!(put(&catalogue, &home("a"), "task", 2.0).await, Change::Updated);
    assert_eq!(put(&catalogue, &home("a"), "task", 2.0).await, Change::Unchanged);
    assert_eq!(value(&catalogue, "a", "task").await, Ok(2.0));
    assert_eq!(former.weights().prompt().data()[0], 1.0, "who began with it keeps it");
    let first = former.version();
    for catalogue in [catalogue, open(root.path()).await] {
        assert_eq!(value(&catalogue, "a", &format!("task@{}", &first.hex()[..12])).await, Ok(1.0));
        assert_eq!(value(&catalogue, "a", "task").await, Ok(2.0));
        let versions = catalogue.versions(&tenant("a"), &name("task")).await.unwrap();
        let versions: Vec<Version> = versions.iter().map(|found| found.version.version).collect();
        assert_eq!(versions, [version_of(files(2.0, 2)), first]);
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_then_what_is_shared_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    put(&catalogue, &Namespace::shared(), "both", 1.0).await;
    put(&catalogue, &Namespace::shared(), "common", 2.0).await;
    put(&catalogue, &home("a"), "both", 3.0).await;
    put(&catalogue, &home("a"), "secret", 4.0).await;
    let seen = async |who: &str| {
        let mut seen = Vec::new();
        for what in ["both", "common", "secret"] {
            seen.push(value(&catalogue, who, what).await.ok());
        }
        seen
    };
    assert_eq!(seen("a").await, [Some(3.0), Some(2.0), Some(4.0)]);
    assert_eq!(seen("b").await, [Some(1.0), Some(2.0), None]);
    let listed = |who: &str, page: (usize, Option<&AdapterName>)| {
        let (list, more) = catalogue.list(&tenant(who), page, |_| true);
        (list.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" "), more)
    };
    assert_eq!(listed("a", (9, None)), ("both common secret".into(), false));
    assert_eq!(listed("b", (9, None)), ("both common".into(), false));
    assert_eq!(listed("a", (2, None)), ("both common".into(), true));
    assert_eq!(listed("a", (2, Some(&name("common")))), ("secret".into(), false));
    assert_eq!(listed("a", (1, Some(&name("bottom")))), ("common".into(), true));
    let missing = value(&catalogue, "b", "secret").await.unwrap_err();
    assert_eq!(missing.replace("secret", "nothing"), value(&catalogue, "b", "nothing").await.unwrap_err());
}

#[tokio::test]
async fn a_condition_that_does_not_hold_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let (namespace, task) = (home("a"), name("task"));
    let current = version_of(files(1.0, 2));
    let put = async |number, condition| {
        catalogue.put(&namespace, &task, files(number, 2), condition).await.map(|put| put.change)
    };
    assert!(matches!(put(1.0, Precondition::Present).await, Err(CatalogueError::Precondition { .. })));
    assert!(matches!(put(1.0, Precondition::Is(current)).await, Err(CatalogueError::Precondition { .. })));
    assert!(!root.path().join(".store/v1/blobs").exists(), "not even a blob was written");
    assert_eq!(put(1.0, Precondition::Absent).await.unwrap(), Change::Created);
    let refused = put(2.0, Precondition::Absent).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!(
            "'task' is at {current}, and the change was to be made only if it is not there"
        ))
    );
    assert_eq!(put(2.0, Precondition::Is(current)).await.unwrap(), Change::Updated);
    assert!(matches!(put(3.0, Precondition::Is(current)).await, Err(CatalogueError::Precondition { .. })));
    let stale = catalogue.delete(&namespace, &task, false, Precondition::Is(current)).await;
    assert!(matches!(stale, Err(CatalogueError::Precondition { .. })));
    assert_eq!(value(&catalogue, "a", "task").await, Ok(2.0));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_written() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let put = async |what: &str, files| {
        catalogue.put(&home("a"), &name(what), files, Precondition::None).await.unwrap_err().to_string()
    };
    assert!(put("tiny", files(1.0, 2)).await.contains("that is the model's name"));
    let mut causal = files(1.0, 2);
    causal.config = String::from_utf8(causal.config).unwrap().replace("SEQ_2_SEQ_LM", "CAUSAL_LM").into();
    assert!(put("task", causal).await.contains("has task_type CAUSAL_LM"));
    assert!(put("task", files(f32::NAN, 2)).await.contains("adapter_model.safetensors"));
    assert!(!root.path().join(".store").exists());
}

#[tokio::test]
async fn an_alias_moves_from_one_version_to_another_and_holds_them() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let (space, live) = (home("a"), name("live"));
    put(&catalogue, &space, "task", 1.0).await;
    let alias = async |target: &str| {
        catalogue
            .set_alias(&space, &live, &wanted(target), Precondition::None)
            .await
            .map(|(change, _)| change)
    };
    assert_eq!(alias("task").await.unwrap(), Change::Created);
    put(&catalogue, &space, "task", 2.0).await;
    assert_eq!(value(&catalogue, "a", "live").await, Ok(1.0), "the version of then");
    let first = version_of(files(1.0, 2));
    let gone = catalogue
        .delete_version(&space, &name("task"), &first.hex().parse().unwrap(), Precondition::None)
        .await;
    assert!(matches!(gone, Err(CatalogueError::Aliased { .. })));
    let gone = catalogue.delete(&space, &name("task"), false, Precondition::None).await;
    assert!(matches!(gone, Err(CatalogueError::Aliased { .. })));
    for number in 3..20 {
        put(&catalogue, &space, "task", number as f32).await;
    }
    assert_eq!(value(&catalogue, "a", "live").await, Ok(1.0), "a version that is stood for is kept");
    let versions = catalogue.versions(&tenant("a"), &name("task")).await.unwrap();
    assert_eq!(versions.len(), 10);
    assert_eq!(
        (alias("task").await.unwrap(), alias("task").await.unwrap()),
        (Change::Updated, Change::Unchanged)
    );
    assert_eq!(value(&catalogue, "a", "live").await, Ok(19.0));
    assert!(matches!(alias("live").await, Err(CatalogueError::AliasOfAlias(_))));
    assert!(matches!(alias("none").await, Err(CatalogueError::Unknown { .. })));
    let taken = catalogue.put(&space, &live, files(9.0, 2), Precondition::None).await;
    assert!(matches!(taken, Err(CatalogueError::OtherKind(_, "an alias"))));
    let other = catalogue.set_alias(&space, &name("task"), &wanted("task"), Precondition::None).await;
    assert!(matches!(other, Err(CatalogueError::OtherKind(_, "an adapter"))));
    catalogue.delete(&space, &live, true, Precondition::None).await.unwrap();
    catalogue.delete(&space, &name("task"), false, Precondition::None).await.unwrap();
    assert!(value(&catalogue, "a", "task").await.is_err());
}

#[tokio::test]
async fn the_current_version_deleted_the_one_before_it_is_current() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    let (space, task) = (home("a"), name("task"));
    for number in [1.0, 2.0] {
        put(&catalogue, &space, "task", number).await;
    }
    for (number, left) in [(2.0, Some(1.0)), (1.0, None)] {
        let version = version_of(files(number, 2)).hex().parse().unwrap();
        catalogue.delete_version(&space, &task, &version, Precondition::None).await.unwrap();
        assert_eq!(value(&catalogue, "a", "task").await.ok(), left);
    }
    let nothing = catalogue.delete(&space, &task, false, Precondition::None).await;
    assert!(matches!(nothing, Err(CatalogueError::Unknown { .. })));
}

/// Writes an adapter's folder under the root.
fn seed(root: &Path, folder: &str, number: f32) {
    let files = files(number, 2);
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), files.config).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), files.weights).unwrap();
    // Times of files may be coarse: what is written next must look newer.
    let newer = std::time::SystemTime::now() + Duration::from_secs(number as u64 * 10);
    let file = std::fs::File::options().write(true).open(folder.join("adapter_config.json")).unwrap();
    file.set_modified(newer).unwrap();
}

#[tokio::test]
async fn folders_come_change_and_go_and_an_upload_hides_one() {
    let root = tempfile::tempdir().unwrap();
    seed(root.path(), "film", 1.0);
    std::fs::create_dir_all(root.path().join("Broken")).unwrap();
    let (catalogue, failures) =
        Catalogue::open(config(root.path(), 1 << 20, NEVER), Arc::default()).await.unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!(value(&catalogue, "a", "film").await, Ok(1.0));
    assert!(catalogue.rescan_seeds().await.unwrap().is_empty(), "what was refused is told once");
    seed(root.path(), "film", 2.0);
    seed(root.path(), "book", 3.0);
    catalogue.rescan_seeds().await.unwrap();
    assert_eq!(
        (value(&catalogue, "a", "film").await, value(&catalogue, "b", "book").await),
        (Ok(2.0), Ok(3.0))
    );
    let deleted = catalogue.delete(&Namespace::shared(), &name("film"), false, Precondition::None).await;
    assert!(matches!(deleted, Err(CatalogueError::ReadOnly(_))));
    put(&catalogue, &Namespace::shared(), "film", 9.0).await;
    catalogue.rescan_seeds().await.unwrap();
    assert_eq!(value(&catalogue, "a", "film").await, Ok(9.0));
    assert_eq!(
        value(&open(root.path()).await, "a", "film").await,
        Ok(9.0),
        "in whatever order they are found"
    );
    catalogue.delete(&Namespace::shared(), &name("film"), false, Precondition::None).await.unwrap();
    assert_eq!(value(&catalogue, "a", "film").await, Ok(2.0), "the folder is back");
    std::fs::remove_dir_all(root.path().join("film")).unwrap();
    catalogue.rescan_seeds().await.unwrap();
    assert!(value(&catalogue, "a", "film").await.is_err());
    let (found, bytes) = catalogue.content(&tenant("a"), &wanted("book")).await.unwrap();
    let files = archive::read(&bytes, &archive::Limits::default()).unwrap();
    let again = LoadedAdapter::from_bytes(files, None).unwrap().into_generation(name("book"));
    assert_eq!(again.version(), found.version.version);
}

#[tokio::test]
async fn another_servers_upload_is_found_at_its_first_use_and_its_changes_by_looking() {
    let root = tempfile::tempdir().unwrap();
    let one = open(root.path()).await;
    let two = open_with(config(root.path(), 1 << 20, Duration::ZERO)).await;
    put(&one, &home("a"), "task", 1.0).await;
    assert_eq!(value(&two, "a", "task").await, Ok(1.0));
    assert!(value(&two, "b", "task").await.is_err());
    put(&one, &home("a"), "task", 2.0).await;
    assert_eq!(value(&two, "a", "task").await, Ok(1.0), "what is known is served until the next look");
    let second = version_of(files(2.0, 2)).hex();
    assert_eq!(
        value(&two, "a", &format!("task@{second}")).await,
        Ok(2.0),
        "an unknown version is looked for"
    );
    put(&one, &home("a"), "other", 3.0).await;
    put(&two, &home("a"), "task", 4.0).await;
    for catalogue in [&one, &two] {
        catalogue.refresh().await.unwrap();
        assert_eq!(
            (value(catalogue, "a", "task").await, value(catalogue, "a", "other").await),
            (Ok(4.0), Ok(3.0))
        );
    }
    two.delete(&home("a"), &name("task"), false, Precondition::None).await.unwrap();
    one.refresh().await.unwrap();
    assert!(value(&one, "a", "task").await.is_err());
    // A name that nobody has is asked of the store once in a while only.
    assert!(value(&one, "a", "later").await.is_err());
    put(&two, &home("a"), "later", 5.0).await;
    assert!(value(&one, "a", "later").await.is_err(), "asked a moment ago");
    one.refresh().await.unwrap();
    assert_eq!(value(&one, "a", "later").await, Ok(5.0));
}

#[tokio::test]
async fn a_damaged_blob_is_never_served_and_harms_no_other() {
    let root = tempfile::tempdir().unwrap();
    let catalogue = open(root.path()).await;
    put(&catalogue, &home("a"), "task", 1.0).await;
    put(&catalogue, &home("a"), "other", 2.0).await;
    let catalogue = open(root.path()).await;
    let found = catalogue.find(&tenant("a"), &wanted("task")).await.unwrap();
    let path = root.path().join(".store/v1/blobs/sha256").join(&found.version.blob);
    let mut bytes = std::fs::read(&path).unwrap();
    let sound = bytes.clone();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = value(&catalogue, "a", "task").await.unwrap_err();
    assert!(error.contains("adapter 'task' can't be loaded") && error.contains("damaged"), "{error}");
    assert_eq!(value(&catalogue, "a", "other").await, Ok(2.0));
    std::fs::write(&path, sound).unwrap();
    assert_eq!(value(&catalogue, "a", "task").await, Ok(1.0), "a load that failed is tried anew");
}

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
    assert!(!large.found.resident);
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
    assert!(pinned.pinned && pinned.resident);
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

/// One change, or a look.
#[derive(Debug, Clone)]
enum Op {
    Put { at: usize, number: u8, condition: u8 },
    Delete { at: usize },
    Alias { at: usize, target: usize },
    Unalias { at: usize },
    Reopen,
    Look { other: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_usize..3, 0_u8..6, 0_u8..4).prop_map(|(at, number, condition)| Op::Put { at, number, condition }),
        2 => (0_usize..4).prop_map(|at| Op::Delete { at }),
        2 => (2_usize..4, 0_usize..4).prop_map(|(at, target)| Op::Alias { at, target }),
        1 => (0_usize..4).prop_map(|at| Op::Unalias { at }),
        1 => Just(Op::Reopen),
        2 => any::<bool>().prop_map(|other| Op::Look { other }),
    ]
}

const NAMES: [&str; 4] = ["x", "y", "z", "w"];

#[derive(Debug, Clone, PartialEq)]
enum Model {
    Adapter(Vec<u8>),
    Alias(usize, u8),
}

/// A catalogue beside a plain map of what it should say.
struct Pair {
    root: tempfile::TempDir,
    catalogue: Catalogue,
    other: Catalogue,
    model: HashMap<usize, Model>,
}

impl Pair {
    async fn apply(&mut self, op: Op) {
        let space = home("a");
        match op {
            Op::Put { at, number, condition } => self.put(at, number, condition).await,
            Op::Delete { at } => {
                let deleted =
                    self.catalogue.delete(&space, &name(NAMES[at]), false, Precondition::None).await;
                let aliased =
                    self.model.values().any(|held| matches!(held, Model::Alias(target, _) if *target == at));
                let there = matches!(self.model.get(&at), Some(Model::Adapter(_)));
                assert_eq!(deleted.is_ok(), there && !aliased, "{deleted:?}");
                if deleted.is_ok() {
                    self.model.remove(&at);
                }
            }
            Op::Alias { at, target } => {
                let (alias, target_ref) = (name(NAMES[at]), wanted(NAMES[target]));
                let set = self.catalogue.set_alias(&space, &alias, &target_ref, Precondition::None);
                let set = set.await.map(drop);
                let current = match self.model.get(&target) {
                    Some(Model::Adapter(versions)) => versions.last().copied(),
                    _ => None,
                };
                let free = !matches!(self.model.get(&at), Some(Model::Adapter(_)));
                assert_eq!(set.is_ok(), current.is_some() && free, "{set:?}");
                if let (Some(number), Ok(())) = (current, set) {
                    self.model.insert(at, Model::Alias(target, number));
                }
            }
            Op::Unalias { at } => {
                let deleted = self.catalogue.delete(&space, &name(NAMES[at]), true, Precondition::None).await;
                assert_eq!(deleted.is_ok(), matches!(self.model.get(&at), Some(Model::Alias(..))));
                if deleted.is_ok() {
                    self.model.remove(&at);
                }
            }
            Op::Reopen => self.catalogue = open(self.root.path()).await,
            Op::Look { other } => {
                self.other.refresh().await.unwrap();
                let catalogue = if other { &self.other } else { &self.catalogue };
                for (at, what) in NAMES.iter().enumerate() {
                    let expected = match self.model.get(&at) {
                        Some(Model::Adapter(versions)) => versions.last().copied(),
                        Some(Model::Alias(_, number)) => Some(*number),
                        None => None,
                    };
                    assert_eq!(value(catalogue, "a", what).await.ok(), expected.map(f32::from), "{what}");
                }
                let listed = catalogue.list(&tenant("a"), (9, None), |_| true).0.len();
                assert_eq!(listed, self.model.len());
            }
        }
    }

    async fn put(&mut self, at: usize, number: u8, condition: u8) {
        let held = self.model.get(&at).cloned();
        let current = match &held {
            Some(Model::Adapter(versions)) => versions.last().copied(),
            Some(Model::Alias(_, number)) => Some(*number),
            None => None,
        };
        let is = version_of(files(f32::from(number), 2));
        let (condition, holds) = match condition {
            0 => (Precondition::Absent, current.is_none()),
            1 => (Precondition::Is(is), current == Some(number)),
            2 => (Precondition::Present, current.is_some()),
            _ => (Precondition::None, true),
        };
        let put =
            self.catalogue.put(&home("a"), &name(NAMES[at]), files(f32::from(number), 2), condition).await;
        let is_alias = matches!(held, Some(Model::Alias(..)));
        assert_eq!(put.is_ok(), holds && !is_alias, "{:?}", put.map(|put| put.change));
        if holds && !is_alias {
            let entry = self.model.entry(at).or_insert(Model::Adapter(Vec::new()));
            let Model::Adapter(versions) = entry else { unreachable!() };
            versions.retain(|known| *known != number);
            versions.push(number);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_is_done_the_store_says_what_was_done(ops in prop::collection::vec(op(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let root = tempfile::tempdir().unwrap();
            let (catalogue, other) = (open(root.path()).await, open(root.path()).await);
            let mut pair = Pair { root, catalogue, other, model: HashMap::new() };
            for op in ops {
                pair.apply(op).await;
            }
            pair.apply(Op::Reopen).await;
            pair.apply(Op::Look { other: false }).await;
            pair.apply(Op::Look { other: true }).await;
        });
    }
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
