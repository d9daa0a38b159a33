use proptest::prelude::*;

use super::*;
use crate::kernels::{
    dept_embed::EmbeddingTable,
    linear::{ActivationBits, Epilogue, Linear, LinearPart, LinearWeights},
    pool::ComputePool,
};

const KEY: &str = "what they were packed from";

fn map(seed: usize, n: usize, k: usize) -> Linear {
    let values: Vec<f32> = (0..n * k).map(|index| ((index * 7 + seed) % 13) as f32 - 6.0).collect();
    let shape = LinearShape { n, k };
    let weights = LinearWeights::quantise_blocks(&values, shape, ActivationBits::Eight).unwrap();
    Linear::concat(vec![LinearPart { shape, weights, bias: None }], ComputePool::serial()).unwrap()
}

fn maps() -> [(&'static str, Linear); 2] {
    [("first", map(1, 70, 64)), ("second", map(2, 3, 40))]
}

const TABLE: TableRows = TableRows { format: RowFormat::Q4_0, vocab: 3, hidden: 64 };

fn rows() -> Bytes {
    (0..108).collect::<Vec<u8>>().into()
}

fn parts() -> Vec<(String, PackedPart)> {
    let maps = maps().map(|(name, map)| (name.to_owned(), PackedPart::Map(map)));
    let mut parts = Vec::from(maps);
    parts.push(("rows".into(), PackedPart::Table(TABLE, rows())));
    parts
}

fn written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.packed");
    PackedFile::write(&path, KEY, &parts()).unwrap();
    (folder, path)
}

#[test]
fn parts_larger_than_what_is_written_at_a_time_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.packed");
    let rows = |seed: usize, len: usize| Bytes::from_iter((0..len).map(|at| ((at * 31 + seed) % 251) as u8));
    let lengths = [LARGE_PAGE - 64, 64, 3 * LARGE_PAGE + 7, 1, LARGE_PAGE];
    let tables = lengths.iter().enumerate().map(|(at, &len)| (at.to_string(), rows(at, len)));
    let parts: Vec<_> = tables.clone().map(|(name, rows)| (name, PackedPart::Table(TABLE, rows))).collect();
    PackedFile::write(&path, KEY, &parts).unwrap();
    let file = PackedFile::open(&path, KEY).unwrap();
    for (name, rows) in tables {
        assert!(file.table(&name) == Some((TABLE, rows)), "part {name}");
    }
}

fn damage(path: &Path, key: &str) -> String {
    match PackedFile::open(path, key) {
        Err(PackedFileError::Damaged { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn maps_come_back_as_they_were() {
    let (folder, path) = written();
    let file = PackedFile::open(&path, KEY).unwrap();
    assert_eq!(file.parts(), 3);
    for (name, linear) in maps() {
        let kept = file.map(name).unwrap();
        let back = Linear::from_bytes(kept, Epilogue::Plain, ComputePool::serial()).unwrap();
        assert_eq!(back.bytes(), linear.bytes());
    }
    assert_eq!(file.table("rows"), Some((TABLE, rows())));
    assert!(file.map("rows").is_none() && file.table("first").is_none() && file.map("third").is_none());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [path], "nothing is left beside it");
}

#[test]
fn a_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = written();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_open_file_outlives_its_name() {
    let (_folder, path) = written();
    let file = PackedFile::open(&path, KEY).unwrap();
    PackedFile::write(&path, KEY, &parts()[..1]).unwrap();
    let kept = file.map("second").unwrap();
    assert_eq!(kept.weights, maps()[1].1.bytes().weights);
    assert_eq!(PackedFile::open(&path, KEY).unwrap().parts(), 1);
}

#[test]
fn another_key_is_told() {
    let (_folder, path) = written();
    assert_eq!(damage(&path, "something else"), "it was packed from another file or in another way");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_with_its_path() {
    let error = PackedFile::write(Path::new("/nowhere/at/all.packed"), KEY, &parts()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all.packed: "), "{error}");
}

#[test]
fn an_index_that_points_outside_is_refused() {
    let (_folder, path) = written();
    let whole = fs::read(&path).unwrap();
    let start = u64::from_le_bytes(whole[whole.len() - 16..][..8].try_into().unwrap()) as usize;
    let index = String::from_utf8(whole[start..whole.len() - 16].to_vec()).unwrap();
    let end = start.to_string();
    // Every number of a range, one after the other, made too large.
    for (at, _) in index.match_indices("\"end\":") {
        let number = at + "\"end\":".len();
        let digits = index[number..].chars().take_while(char::is_ascii_digit).count();
        for large in [format!("{}1", end), u64::MAX.to_string(), "-1".into()] {
            let broken = [&index[..number], &large, &index[number + digits..]].concat();
            let file = [&whole[..start], broken.as_bytes(), &whole[whole.len() - 16..]].concat();
            fs::write(&path, file).unwrap();
            let reason = damage(&path, KEY);
            assert!(reason.contains("lies at") || reason.contains("its index: "), "{reason}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the bytes are, the file opens or says why not; what opens gives maps or none.
    #[test]
    fn broken_files_are_refused_and_none_panics(
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        from_the_end in any::<bool>(),
    ) {
        let (_folder, path) = written();
        let mut bytes = fs::read(&path).unwrap();
        let whole = bytes.clone();
        // Most of a file is weights; what is read lies at its end.
        let tail = if from_the_end { bytes.len().min(600) } else { bytes.len() };
        let first = bytes.len() - tail;
        for (at, bits) in flips {
            let at = first + at.index(tail);
            bytes[at] ^= bits;
        }
        if !from_the_end {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        fs::write(&path, &bytes).unwrap();
        match PackedFile::open(&path, KEY) {
            Err(PackedFileError::Damaged { reason, .. }) => prop_assert!(!reason.is_empty()),
            Err(error) => prop_assert!(false, "{error}"),
            Ok(file) => {
                prop_assert_eq!(bytes.len(), whole.len());
                if let Some((TableRows { format, vocab, hidden }, rows)) = file.table("rows") {
                    let _ = EmbeddingTable::blocks(vocab, hidden, format, rows);
                }
                for name in ["first", "second"] {
                    let map = file.map(name);
                    let _ = map.map(|map| Linear::from_bytes(map, Epilogue::Plain, ComputePool::serial()));
                }
            }
        }
    }
}
