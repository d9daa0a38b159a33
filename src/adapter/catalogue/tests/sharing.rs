//! What other hands do to a store: folders that come and go, another server, a damaged file.

use super::*;

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
