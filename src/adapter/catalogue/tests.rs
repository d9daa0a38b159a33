mod attacks;
mod faults;
mod model;
mod residency;
mod sharing;

use std::path::Path;

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
