use super::*;

fn model() -> Weights {
    Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama.q8_0.gguf")).unwrap()
}

fn remembers(parts: &PackedParts) -> bool {
    matches!(parts, PackedParts::Remembered(_))
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_kept_is_found_by_the_same_model_and_recipe_only() {
    let root = tempfile::tempdir().unwrap();
    let (folder, weights) = (root.path().join("not/there/yet"), model());
    let cache = |recipe| WeightsCache { folder: &folder, weights: &weights, recipe };
    assert!(remembers(&cache(Recipe::Stored).open()));
    // Dropped: waited for.
    drop(cache(Recipe::Stored).unkept(Vec::new()).keep());
    assert!(matches!(cache(Recipe::Stored).open(), PackedParts::Kept(_)));
    assert!(remembers(&cache(Recipe::Fine).open()));
    let names = files(&folder);
    assert!(names.len() == 1 && names[0].starts_with("llama.q8_0.gguf-"), "{names:?}");
}

#[test]
fn what_the_configuration_says_is_part_of_the_key() {
    let root = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
    let copy = |name: &str| fs::copy(golden.join(name), root.path().join(name)).unwrap();
    copy("model.safetensors");
    copy("config.json");
    let key_now = || {
        let weights = Weights::open(root.path()).unwrap();
        WeightsCache { folder: root.path(), weights: &weights, recipe: Recipe::Stored }.key()
    };
    let before = key_now();
    assert_eq!(key_now(), before);
    let config = fs::read_to_string(root.path().join("config.json")).unwrap();
    fs::write(root.path().join("config.json"), config.replacen('{', "{\"more\": 1,", 1)).unwrap();
    assert_ne!(key_now(), before);
}

#[test]
fn a_damaged_file_is_made_anew() {
    let (root, weights) = (tempfile::tempdir().unwrap(), model());
    let cache = WeightsCache { folder: root.path(), weights: &weights, recipe: Recipe::Stored };
    fs::write(cache.path(), "not one of these").unwrap();
    assert!(remembers(&cache.open()));
    cache.unkept(Vec::new()).write().unwrap();
    assert!(matches!(cache.open(), PackedParts::Kept(_)));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_and_no_more() {
    let (root, weights) = (tempfile::tempdir().unwrap(), model());
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let cache = WeightsCache { folder: &file.join("folder"), weights: &weights, recipe: Recipe::Stored };
    assert!(remembers(&cache.open()));
    assert!(cache.unkept(Vec::new()).write().unwrap_err().to_string().contains("file/folder: "));
}

#[test]
fn what_nobody_uses_goes_and_what_was_never_finished_sooner() {
    let (root, weights) = (tempfile::tempdir().unwrap(), model());
    let days = |count: u32| SystemTime::now() - HOUR * (24 * count);
    let (key, part) = ("0123456789abcdef", "01a2284f-cfaf-71d4-9267-093b9af5cb75.part");
    let ours = [
        (format!("old-{key}.packed"), days(31)),
        (format!("used.gguf-{key}.packed"), days(29)),
        (format!("killed.gguf-{key}.{part}"), days(1)),
        (format!("running-{key}.{part}"), SystemTime::now()),
    ];
    let others =
        ["film.mkv.part", "mine.packed", "some-0123.packed", part].map(|name| (name.to_owned(), days(60)));
    for (name, time) in ours.iter().chain(&others) {
        File::create(root.path().join(name)).unwrap().set_modified(*time).unwrap();
    }
    let cache = WeightsCache { folder: root.path(), weights: &weights, recipe: Recipe::Stored };
    cache.open();
    let mut left: Vec<String> = others.into_iter().map(|(name, _)| name).collect();
    left.extend([ours[1].0.clone(), ours[3].0.clone()]);
    left.sort();
    assert_eq!(files(root.path()), left);
    cache.unkept(Vec::new()).write().unwrap();
    File::open(cache.path()).unwrap().set_modified(days(31)).unwrap();
    touch(&cache.path());
    cache.open();
    assert!(cache.path().is_file(), "a start that uses a file keeps it");
}
