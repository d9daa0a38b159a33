use std::{io::Write, path::Path};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{
    super::{
        LoadedAdapter,
        archive::{ArchiveError, Limits, pack, read},
        folder::AdapterBytes,
        tensor_file::WeightsFormat,
    },
    support::{config, safetensors, says, tensors, torch_bin, zip_of},
};

type Files = Vec<(String, Vec<u8>)>;

fn files() -> Files {
    vec![
        ("adapter_config.json".into(), config().to_string().into_bytes()),
        ("adapter_model.safetensors".into(), safetensors(&tensors())),
        ("card.toml".into(), b"max_tokens = 3".to_vec()),
    ]
}

fn with(name: &str, bytes: &[u8]) -> Files {
    let mut files = files();
    files.push((name.to_owned(), bytes.to_vec()));
    files
}

fn deflated(files: &Files) -> Vec<u8> {
    zip_of(files, CompressionMethod::Deflated)
}

fn tar_entry(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    // Past the builder's own checks, as an attacker would write it.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header
}

fn tar(files: &Files) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, bytes) in files {
        let kind = if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
        tar.append(&tar_entry(name, kind, bytes.len() as u64), bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// The files in each of the forms.
fn forms(files: &Files) -> [Vec<u8>; 3] {
    [zip_of(files, CompressionMethod::Stored), deflated(files), gzip(&tar(files))]
}

fn limits(bytes: u64) -> Limits {
    Limits { bytes, ..Limits::default() }
}

fn open(bytes: &[u8]) -> Result<AdapterBytes, ArchiveError> {
    read(bytes, &Limits::default())
}

#[track_caller]
fn all_say(files: &Files, parts: &[&str]) {
    for bytes in forms(files) {
        says(open(&bytes), parts);
    }
}

#[test]
fn every_form_gives_the_files_of_a_folder() {
    let in_folder: Files =
        files().into_iter().map(|(name, bytes)| (format!("boolq/{name}"), bytes)).collect();
    let dotted: Files = files().into_iter().map(|(name, bytes)| (format!("./{name}"), bytes)).collect();
    for bytes in [files(), in_folder, dotted].iter().flat_map(forms) {
        let files = open(&bytes).unwrap();
        assert_eq!(
            (files.config, files.format),
            (config().to_string().into_bytes(), WeightsFormat::Safetensors)
        );
        assert_eq!((files.weights, files.card), (safetensors(&tensors()), Some(b"max_tokens = 3".to_vec())));
    }
    let loaded = LoadedAdapter::from_bytes(open(&deflated(&files())).unwrap(), None).unwrap();
    assert_eq!((loaded.weights.prompt_length(), loaded.card.max_tokens), (2, Some(3)));
}

#[test]
fn folders_may_be_entries_themselves() {
    let mut files: Files =
        files().into_iter().map(|(name, bytes)| (format!("boolq/{name}"), bytes)).collect();
    files.insert(0, ("boolq/".into(), vec![]));
    assert!(open(&gzip(&tar(&files))).is_ok());
    files.insert(0, ("./".into(), vec![]));
    assert!(open(&gzip(&tar(&files))).is_ok());
    files.push(("other/".into(), vec![]));
    says(open(&gzip(&tar(&files))), &["'other' is not beside the other files"]);
}

#[test]
fn safetensors_count_where_both_weights_are_there() {
    for bytes in forms(&with("adapter_model.bin", b"never looked at")) {
        assert_eq!(open(&bytes).unwrap().format, WeightsFormat::Safetensors);
    }
    let mut bin = files();
    bin[1] = ("adapter_model.bin".into(), torch_bin(&tensors()));
    for bytes in forms(&bin) {
        assert_eq!(open(&bytes).unwrap().format, WeightsFormat::TorchBin);
    }
}

#[test]
fn leftovers_are_passed_over_and_other_files_refused_by_name() {
    let mut left = files();
    for name in [
        "README.md",
        "LICENSE",
        "notice.txt",
        ".gitattributes",
        ".DS_Store",
        "__MACOSX/._card.toml",
        ".git/HEAD",
    ] {
        left.push((name.into(), b"whatever".to_vec()));
    }
    for bytes in forms(&left) {
        assert!(open(&bytes).is_ok());
    }
    all_say(&with("training_args.bin", b""), &["'training_args.bin' is no part of an adapter", "card.toml"]);
    all_say(&with("Adapter_Model.bin", b""), &["'Adapter_Model.bin' is no part of an adapter"]);
}

#[test]
fn a_missing_file_is_named() {
    let without = |at: usize| {
        let mut files = files();
        files.remove(at);
        files
    };
    all_say(&without(0), &["has no adapter_config.json"]);
    all_say(&without(1), &["has no adapter_model.safetensors, and no adapter_model.bin"]);
    for bytes in forms(&without(2)) {
        assert_eq!(open(&bytes).unwrap().card, None);
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for (name, part) in [
        ("../card.toml", "leads out of the archive"),
        ("a/../card.toml", "leads out of the archive"),
        ("a/..", "leads out of the archive"),
        ("/etc/card.toml", "absolute path"),
        ("C:/card.toml", "absolute path"),
        ("a\\card.toml", "backslash"),
        ("..\\card.toml", "backslash"),
        ("a//card.toml", "empty part"),
        ("a/./card.toml", "empty part"),
        ("card\x07.toml", "control characters"),
    ] {
        all_say(&with(name, b""), &[part]);
    }
    let mut zip = with("card-x.toml", b"");
    zip[3].0 = "n".repeat(256);
    says(open(&deflated(&zip)), &["more than 255 bytes"]);
    let mut raw = deflated(&with("car\u{e9}.toml", b""));
    let utf8 = "car\u{e9}.toml".as_bytes();
    while let Some(at) = raw.windows(utf8.len()).position(|window| window == utf8) {
        raw[at + 4] = b'x';
    }
    says(open(&raw), &["not UTF-8"]);
}

#[test]
fn files_lie_in_one_place() {
    all_say(
        &with("more/adapter_model.bin", b""),
        &["'more/adapter_model.bin' is not beside the other files"],
    );
    let deep: Files = files().into_iter().map(|(name, bytes)| (format!("a/b/{name}"), bytes)).collect();
    all_say(&deep, &["'a/b/adapter_config.json' is not beside", "in one folder"]);
    all_say(&with("card.zip", b"PK"), &["'card.zip' is an archive in the archive"]);
    all_say(&with("inner.tar.gz", b""), &["'inner.tar.gz' is an archive in the archive"]);
}

#[test]
fn a_name_is_there_once_whatever_its_case() {
    says(open(&gzip(&tar(&with("card.toml", b"")))), &["'card.toml' is in the archive twice"]);
    says(open(&gzip(&tar(&with("./card.toml", b"")))), &["'card.toml' is in the archive twice"]);
    // The writer refuses to write a name twice, so it is put there by hand.
    let mut twice = deflated(&with("card.tomm", b""));
    while let Some(at) = twice.windows(9).position(|window| window == b"card.tomm") {
        twice[at + 8] = b'l';
    }
    says(open(&twice), &["'card.toml' is in the archive twice"]);
    all_say(
        &[with("README", b""), vec![("ReadMe".into(), vec![])]].concat(),
        &["'README' and 'ReadMe' differ only by case"],
    );
}

#[test]
fn limits_hold_before_and_while_reading() {
    let size: usize = files().iter().map(|(_, bytes)| bytes.len()).sum();
    for bytes in forms(&files()) {
        assert!(read(&bytes, &limits(size as u64)).is_ok());
        let error = read(&bytes, &limits(size as u64 - 1)).unwrap_err();
        assert!(error.is_too_large(), "{error}");
        assert!(error.to_string().contains(&format!("more than {} bytes unpacked", size - 1)), "{error}");
        let few = Limits { entries: 2, ..Limits::default() };
        let error = read(&bytes, &few).unwrap_err();
        assert!(error.is_too_large() && error.to_string().contains("3 entries, at most 2"), "{error}");
    }
    let mut long = files();
    long[2].1 = vec![b'#'; (256 << 10) + 1];
    all_say(&long, &["'card.toml' has more than 262144 bytes"]);
}

#[test]
fn a_bomb_is_refused_however_it_is_packed() {
    let mut bomb = files();
    bomb[1].1 = vec![0; 8 << 20];
    for bytes in [deflated(&bomb), gzip(&tar(&bomb))] {
        assert!(bytes.len() < 64 << 10);
        says(read(&bytes, &limits(1 << 20)), &["more than 1048576 bytes unpacked"]);
    }
    // A file that is passed over counts too where it has to be unpacked.
    says(
        read(&gzip(&tar(&with("README", &vec![0; 8 << 20]))), &limits(1 << 20)),
        &["'the archive'", "1048576"],
    );
}

/// Puts `value` at `offset` behind each `magic` in front of `name`.
fn patch(zip: &mut [u8], magic: &[u8], offset: usize, value: &[u8]) {
    let starts: Vec<_> = (0..zip.len() - 4).filter(|&at| zip[at..].starts_with(magic)).collect();
    for at in starts {
        zip[at + offset..at + offset + value.len()].copy_from_slice(value);
    }
}

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";

#[test]
fn headers_that_lie_are_refused() {
    let whole = zip_of(&files(), CompressionMethod::Deflated);
    // Both headers agree on a length that the data has not.
    for (lie, part) in [(1u32, "is damaged"), (u32::MAX - 1, "bytes unpacked")] {
        let mut zip = whole.clone();
        patch(&mut zip, LOCAL, 22, &lie.to_le_bytes());
        patch(&mut zip, CENTRAL, 24, &lie.to_le_bytes());
        says(open(&zip), &["'adapter_", part]);
    }
    let mut zip = whole.clone();
    patch(&mut zip, LOCAL, 22, &7u32.to_le_bytes());
    says(open(&zip), &["the zip is damaged or not plain"]);
    let mut zip = whole.clone();
    patch(&mut zip, LOCAL, 14, &7u32.to_le_bytes());
    patch(&mut zip, CENTRAL, 16, &7u32.to_le_bytes());
    says(open(&zip), &["'adapter_", "is damaged"]);
    let mut zip = whole.clone();
    let at = zip.windows(LOCAL.len() + 30).position(|window| window.starts_with(LOCAL)).unwrap();
    zip[at + 30] = b'b';
    says(open(&zip), &["the zip is damaged or not plain"]);
    // All entries point to the first file.
    let mut zip = whole.clone();
    patch(&mut zip, CENTRAL, 42, &0u32.to_le_bytes());
    says(open(&zip), &["the zip is damaged or not plain"]);
    // The end counts fewer entries than there are, or more.
    for count in [2u16, 4] {
        let mut zip = whole.clone();
        let end = zip.len() - 22;
        zip[end + 8..end + 10].copy_from_slice(&count.to_le_bytes());
        zip[end + 10..end + 12].copy_from_slice(&count.to_le_bytes());
        says(open(&zip), &["its directory"]);
    }
    let mut tar = tar(&files());
    tar[124..136].copy_from_slice(b"00000777777\0");
    says(open(&gzip(&tar)), &[".tar.gz is damaged"]);
}

#[test]
fn unpacking_may_take_its_time_and_no_more() {
    let none = Limits { time: std::time::Duration::ZERO, ..Limits::default() };
    for bytes in forms(&files()) {
        let error = read(&bytes, &none).unwrap_err();
        assert!(matches!(error, ArchiveError::Slow(_)) && error.is_too_large(), "{error}");
        assert!(read(&bytes, &Limits::default()).is_ok());
    }
}

#[test]
fn bytes_around_the_archive_are_refused() {
    let [stored, deflated, tar_gz] = forms(&files());
    for zip in [stored, deflated] {
        says(open(&[zip.clone(), b"more".to_vec()].concat()), &["4 bytes follow the end"]);
        says(open(&[b"PK\x03\x04".to_vec(), zip.clone()].concat()), &["zip is damaged"]);
        says(open(&zip[..zip.len() - 30]), &["was it cut short?"]);
        says(open(&zip[..100]), &["was it cut short?"]);
    }
    says(open(&[tar_gz.clone(), b"more".to_vec()].concat()), &["4 bytes follow the end"]);
    says(open(&[tar_gz.clone(), tar_gz.clone()].concat()), &["bytes follow the end"]);
    says(open(&tar_gz[..tar_gz.len() - 9]), &[".tar.gz is damaged or cut short"]);
    says(open(&gzip(&[tar(&files()), b"more".to_vec()].concat())), &["4 bytes follow the end"]);
    says(
        open(&gzip(&tar(&files())[..700])),
        &["'adapter_config.json' is damaged: it has 188 bytes, its header says"],
    );
    says(open(b"7z\xbc\xaf\x27\x1c"), &["starts with '7z\\xbc\\xaf", ".zip or a .tar.gz"]);
    says(open(b""), &["starts with ''"]);
    says(open(&zip_of(&[], CompressionMethod::Stored)), &["not an archive that is read"]);
    says(open(&gzip(b"")), &["has no adapter_config.json"]);
}

#[test]
fn links_and_devices_are_refused_in_a_tar() {
    for (kind, part) in [
        (EntryType::Symlink, "'card.toml' is a symbolic link"),
        (EntryType::Link, "'card.toml' is a hard link"),
        (EntryType::Char, "'card.toml' is a device"),
        (EntryType::Block, "'card.toml' is a device"),
        (EntryType::Fifo, "'card.toml' is a device"),
        (EntryType::new(b'M'), "'card.toml' is a device"),
    ] {
        let mut tar = Builder::new(Vec::new());
        tar.append(&tar_entry("card.toml", kind, 0), &[][..]).unwrap();
        says(open(&gzip(&tar.into_inner().unwrap())), &[part, "put the file itself"]);
    }
    let mut tar = Builder::new(Vec::new());
    tar.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    tar.append(&tar_entry("card.toml", EntryType::Regular, 0), &[][..]).unwrap();
    says(open(&gzip(&tar.into_inner().unwrap())), &["'card.toml' is a sparse file"]);
}

#[test]
fn links_devices_passwords_and_odd_methods_are_refused_in_a_zip() {
    let with_mode = |mode: u32| {
        let mut zip = deflated(&files());
        patch(&mut zip, CENTRAL, 5, &[3]);
        patch(&mut zip, CENTRAL, 38, &(mode << 16).to_le_bytes());
        zip
    };
    says(open(&with_mode(0o120_777)), &["'adapter_config.json' is a symbolic link"]);
    says(open(&with_mode(0o020_666)), &["'adapter_config.json' is a device"]);
    says(open(&with_mode(0o040_755)), &["'adapter_config.json' is a folder by its mode"]);
    assert!(open(&with_mode(0o100_644)).is_ok());
    let mut zip = deflated(&files());
    patch(&mut zip, LOCAL, 6, &[1]);
    patch(&mut zip, CENTRAL, 8, &[1]);
    says(open(&zip), &["'adapter_config.json' is encrypted"]);
    let mut zip = deflated(&files());
    patch(&mut zip, LOCAL, 8, &[14]);
    patch(&mut zip, CENTRAL, 10, &[14]);
    says(open(&zip), &["'adapter_config.json' is compressed by"]);
}

#[test]
fn a_pack_is_read_again_and_is_the_same_each_time() {
    let files = open(&deflated(&files())).unwrap();
    let packed = pack(&files);
    assert_eq!(packed, pack(&files.clone()));
    assert_eq!(pack(&open(&packed).unwrap()), packed);
    let card = packed.windows(9).position(|window| window == b"card.toml").unwrap();
    // 1980-01-01 00:00, the first time that a zip can state.
    assert_eq!(packed[card - 20..card - 16], [0, 0, 0x21, 0]);
    let bare = AdapterBytes { card: None, format: WeightsFormat::TorchBin, ..files };
    assert_eq!(open(&pack(&bare)).unwrap().format, WeightsFormat::TorchBin);
}

#[test]
fn what_other_programs_write_is_read() {
    // gzip with a name and a time, as gzip(1) writes it, and tar with extended headers, as Python and BSD write it.
    let mut tar = Builder::new(Vec::new());
    for (name, bytes) in &files() {
        tar.append_pax_extensions([("mtime", &b"1700000000.25"[..]), ("path", name.as_bytes())]).unwrap();
        tar.append(&tar_entry("short", EntryType::Regular, bytes.len() as u64), bytes.as_slice()).unwrap();
    }
    let mut gzip = GzBuilder::new().filename("boolq.tar").mtime(1).write(Vec::new(), Compression::best());
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    assert!(open(&gzip.finish().unwrap()).is_ok());
    // By Python's zipfile and tarfile.
    for name in ["stored.zip", "deflated.zip", "bin.zip", "pax.tar.gz", "gnu.tar.gz"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/archive").join(name);
        let files = open(&std::fs::read(path).unwrap()).unwrap();
        assert!(LoadedAdapter::from_bytes(files, None).is_ok(), "{name}");
    }
    // A zip written to a pipe, its lengths behind the data.
    let mut zip = ZipWriter::new_stream(Vec::new());
    for (name, bytes) in &files() {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    assert!(open(&zip.finish().unwrap().into_inner()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_archive_damaged_anywhere_is_answered(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let [stored, deflated, _] = forms(&files());
        for mut bytes in [stored, deflated] {
            for (index, byte) in &flips {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = read(&bytes, &limits(1 << 16));
            let _ = read(&bytes[..cut.index(bytes.len())], &limits(1 << 16));
        }
        let mut tar = tar(&files());
        for (index, byte) in &flips {
            let at = index.index(tar.len());
            tar[at] = *byte;
        }
        let _ = read(&gzip(&tar), &limits(1 << 16));
    }
}
