use zip::CompressionMethod;

use super::{
    super::{
        assemble::PROMPT,
        tensor_file::WeightsFormat,
        torch_bin::{TorchBin, TorchError},
    },
    support::{Pickle, config, counting, encode, load_bytes, says, tensors, torch_bin, torch_zip, zip_of},
};

/// Storage 0 of these f32 values.
fn storage(values: impl IntoIterator<Item = f32>) -> [(&'static str, Vec<u8>); 1] {
    [("0", values.into_iter().flat_map(f32::to_le_bytes).collect())]
}

/// A file of one tensor `x`, a view of six elements 0.0 to 5.0.
fn viewed(offset: i64, shape: &[i64], stride: &[i64]) -> Result<Vec<f32>, TorchError> {
    let pickle =
        Pickle::new().raw(b"}").text("x").tensor("FloatStorage", "0", 6, (offset, shape, stride)).raw(b"s.");
    TorchBin::open(torch_zip(&pickle.0, &storage((0..6).map(|i| i as f32))))?.read("x")
}

/// Opens a file whose pickle is this.
fn opened(pickle: Pickle) -> Result<TorchBin, TorchError> {
    TorchBin::open(torch_zip(&pickle.0, &[]))
}

#[test]
fn views_read_row_major_whatever_their_strides() {
    assert_eq!(viewed(0, &[2, 3], &[3, 1]).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(viewed(0, &[3, 2], &[1, 3]).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(viewed(1, &[2, 2], &[3, 1]).unwrap(), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(viewed(5, &[], &[]).unwrap(), [5.0]);
    assert!(viewed(0, &[0, 4], &[4, 1]).unwrap().is_empty());
    assert_eq!(viewed(0, &[1, 2], &[i64::MAX, 1]).unwrap(), [0.0, 1.0]);
}

#[test]
fn views_outside_of_their_storage_are_refused() {
    for (offset, shape, stride) in [
        (0, &[7i64][..], &[1i64][..]),
        (1, &[6], &[1]),
        (6, &[], &[]),
        (i64::MAX, &[2], &[1]),
        (0, &[2, 4], &[3, 1]),
        (0, &[i64::MAX, i64::MAX], &[0, 0]),
        (0, &[3], &[i64::MAX]),
        (0, &[1_000_000_000], &[0]),
        (0, &[7, 1], &[0, 1]),
    ] {
        says(viewed(offset, shape, stride), &["tensor 'x'", "do not fit a storage of 6 elements"]);
    }
    says(viewed(-1, &[2], &[1]), &["a size is negative"]);
    says(viewed(0, &[2], &[-1]), &["a size is negative"]);
    says(viewed(0, &[2, 2], &[1]), &["differ in number"]);
    says(viewed(0, &[1; 9], &[1; 9]), &["more than 8 dimensions"]);
}

#[test]
fn every_float_class_reads_and_others_are_named() {
    use ::safetensors::Dtype;
    for (class, dtype) in [
        ("FloatStorage", Dtype::F32),
        ("HalfStorage", Dtype::F16),
        ("BFloat16Storage", Dtype::BF16),
        ("DoubleStorage", Dtype::F64),
    ] {
        let pickle = Pickle::new().raw(b"}").text("x").tensor(class, "0", 2, (0, &[2], &[1])).raw(b"s.");
        let bytes = [1.5, -2.0].iter().flat_map(|&value| encode(value, dtype)).collect();
        assert_eq!(
            TorchBin::open(torch_zip(&pickle.0, &[("0", bytes)])).unwrap().read("x").unwrap(),
            [1.5, -2.0]
        );
    }
    let pickle = Pickle::new().raw(b"}").text("x").tensor("LongStorage", "0", 2, (0, &[2], &[1])).raw(b"s.");
    let mut file = TorchBin::open(torch_zip(&pickle.0, &[("0", vec![0; 16])])).unwrap();
    says(file.read("x"), &["'x'", "expected dtype f32", "found torch.LongStorage"]);
}

#[test]
fn a_state_dict_of_parameters_reads_too() {
    let tensor = |pickle: Pickle| pickle.tensor("FloatStorage", "0", 2, (0, &[2], &[1]));
    let pickle = Pickle::new().global("collections", "OrderedDict").raw(b")Rq\x00(").text("x");
    let pickle = tensor(pickle.global("torch._utils", "_rebuild_parameter").raw(b"("));
    let pickle = pickle.raw(b"\x88").global("collections", "OrderedDict").raw(b")RtRu}");
    // What state_dict() hangs on it: {"_metadata": OrderedDict({"": {"version": 1}})}
    let pickle = pickle.text("_metadata").global("collections", "OrderedDict").raw(b")R").text("");
    let pickle = pickle.raw(b"}").text("version").raw(b"K\x01sssb.");
    let mut file = TorchBin::open(torch_zip(&pickle.0, &storage([1.0, 2.0]))).unwrap();
    assert_eq!(file.read("x").unwrap(), [1.0, 2.0]);
    assert!(matches!(file.read("y"), Err(TorchError::Unknown(_))));
}

#[test]
fn nothing_but_tensors_is_asked_for() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "defaultdict"),
        ("torch.FloatStorage", "__reduce__"),
        ("", ""),
    ] {
        let call = Pickle::new().global(module, name).raw(b"(").text("rm -rf /").raw(b"tR.");
        says(
            opened(call),
            &["data.pkl", &format!("refused: the pickle asks for {module}.{name};"), "only tensors"],
        );
    }
    let message = says(opened(Pickle::new().global("a\u{1b}[2J", &"x".repeat(5_000))), &["a?[2J.x"]);
    assert!(message.len() < 250, "{message}");
}

#[test]
fn instructions_beyond_tensors_are_refused() {
    // INST, OBJ, STACK_GLOBAL, EXT1, NEWOBJ, FRAME, MEMOIZE, BINBYTES, GLOBAL by string, PERSID, LONG4, DUP, POP
    for code in [b'i', b'o', 0x93, 0x82, 0x81, 0x95, 0x94, b'B', b'S', b'P', 0x8b, b'2', b'0', 0xff, 0x00] {
        says(opened(Pickle::new().raw(&[code])), &["refused", &format!("{code:#04x} at byte 2")]);
    }
    says(opened(Pickle(vec![0x80, 4])), &["protocol 4", "pickle_protocol=2"]);
}

#[test]
fn damaged_pickles_are_refused() {
    let one = |pickle: Pickle| pickle.tensor("FloatStorage", "0", 2, (0, &[2], &[1]));
    let cases: [(Pickle, &str); 22] = [
        (Pickle(vec![]), "cut short"),
        (Pickle::new(), "cut short"),
        (Pickle::new().raw(b"X\xff\xff\xff\xffabc"), "cut short"),
        (Pickle::new().raw(b"ctorch"), "cut short"),
        (Pickle::new().raw(b"."), "stack is empty"),
        (Pickle::new().raw(b"}}."), "left over"),
        (Pickle::new().raw(b"(}."), "left over"),
        (Pickle::new().raw(b"}.x"), "goes on"),
        (Pickle::new().raw(b"N."), "no dictionary"),
        (Pickle::new().raw(b"}(X\x01\0\0\0xu."), "has no value"),
        (Pickle::new().raw(b"}NNs."), "key is no string"),
        (Pickle::new().raw(b"NNNs."), "no dictionary"),
        (Pickle::new().raw(b"}(\x85."), "before a mark"),
        (Pickle::new().raw(b"t."), "no mark"),
        (Pickle::new().raw(b"h\x07."), "never stored"),
        (Pickle::new().raw(b"q\x07."), "stack is empty"),
        (Pickle::new().raw(b"\x8a\xff").raw(&[1; 255]), "more than 64 bits"),
        (Pickle::new().raw(b"NQ."), "tuple was expected"),
        (Pickle::new().raw(b")Q."), "not described as torch"),
        (Pickle::new().raw(b"})R."), "makes no tensor"),
        (Pickle::new().raw(b"NNb."), "no dictionary"),
        (one(one(Pickle::new().raw(b"}(").text("x")).text("x")).raw(b"u."), "'x' is there twice"),
    ];
    for (pickle, part) in cases {
        says(opened(pickle), &["data.pkl", part]);
    }
    says(opened(Pickle::new().raw(b"}").text("x").raw(b"}s.")), &["entry 'x'", "a dictionary", "flat"]);
    for key in ["", "../0", "a", "0/1", "123456789012345678901"] {
        says(
            opened(Pickle::new().tensor("FloatStorage", key, 2, (0, &[2], &[1]))),
            &["not named by a number"],
        );
    }
}

/// Each of these would take gigabytes, or the stack, from a reader that copies or nests values.
#[test]
fn bombs_fizzle() {
    let fill = |bytes: &[u8]| bytes.repeat(60_000 / bytes.len());
    let nested = Pickle::new().raw(b")").raw(&fill(b"\x85"));
    says(opened(nested.raw(b".")), &["no dictionary"]);
    // A tuple of itself twice, over and over: 2^12,000 leaves when written out.
    let doubling = Pickle::new().raw(b")q\x00").raw(&fill(b"h\x00\x86q\x00"));
    says(opened(doubling.raw(b".")), &["no dictionary"]);
    // One long name for many entries.
    let names = Pickle::new().raw(b"}(").text(&"x".repeat(50_000)).raw(b"q\x00");
    let names = names.tensor("FloatStorage", "0", 2, (0, &[2], &[1])).raw(b"q\x01");
    let message = says(opened(names.raw(&b"h\x00h\x01".repeat(3_000)).raw(b"u.")), &["is there twice"]);
    assert!(message.len() < 250, "{message}");
    let marks = Pickle::new().raw(&fill(b"("));
    says(opened(marks.raw(b".")), &["before a mark"]);
    says(opened(Pickle::new().raw(&vec![b'N'; 70_000])), &["longer than 65536 bytes"]);
    let claims =
        Pickle::new().raw(b"}").text("x").tensor("FloatStorage", "0", i64::MAX, (0, &[1 << 40], &[1]));
    let mut file = TorchBin::open(torch_zip(&claims.raw(b"s.").0, &storage([0.0]))).unwrap();
    says(file.read("x"), &["storage 'archive/data/0'", "found 4"]);
}

#[test]
fn storages_must_be_there_and_whole() {
    let pickle = Pickle::new().raw(b"}").text("x").tensor("FloatStorage", "0", 2, (0, &[2], &[1])).raw(b"s.");
    let read =
        |storages: &[(&str, Vec<u8>)]| TorchBin::open(torch_zip(&pickle.0, storages)).unwrap().read("x");
    assert_eq!(read(&storage([1.0, 2.0])).unwrap(), [1.0, 2.0]);
    says(read(&[]), &["no 'archive/data/0'"]);
    says(read(&storage([1.0])), &["expected 8 bytes, found 4".replace("expected", "should have").as_str()]);
    says(read(&storage([1.0, 2.0, 3.0])), &["should have 8 bytes, found 12"]);
}

#[test]
fn only_torch_s_own_archives_are_read() {
    let files = |names: &[&str]| -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| ((*name).to_owned(), b"\x80\x02}.".to_vec())).collect()
    };
    let open = |names: &[&str]| TorchBin::open(zip_of(&files(names), CompressionMethod::Stored));
    assert!(open(&["any-name/data.pkl"]).is_ok());
    says(open(&["a/data"]), &["no data.pkl"]);
    says(open(&["data.pkl"]), &["no data.pkl"]);
    says(open(&["a/data.pkl", "b/data.pkl"]), &["more than one data.pkl"]);
    for name in ["../data.pkl", "a/b/data.pkl", "/data.pkl", "/etc/data.pkl"] {
        assert!(open(&[name]).is_err(), "{name}");
    }
    let many: Vec<String> = (0..5_000).map(|i| format!("a/{i}")).collect();
    says(open(&many.iter().map(String::as_str).collect::<Vec<_>>()), &["5000 files"]);
    let packed = zip_of(&files(&["a/data.pkl"]), CompressionMethod::Deflated);
    says(TorchBin::open(packed), &["'a/data.pkl' is compressed"]);
    let mut big = files(&["a/data.pkl"]);
    big.push(("a/byteorder".into(), b"big".to_vec()));
    says(TorchBin::open(zip_of(&big, CompressionMethod::Stored)), &["byte order is 'big'"]);
}

#[test]
fn other_formats_are_named() {
    says(
        TorchBin::open(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec()),
        &["old format", "adapter_model.safetensors"],
    );
    says(
        TorchBin::open(b"version https://git-lfs.github.com".to_vec()),
        &["not a torch file", "'version http'"],
    );
    says(TorchBin::open(vec![]), &["not a torch file"]);
    says(TorchBin::open(b"PK\x03\x04".to_vec()), &["damaged"]);
}

#[test]
fn damaged_zips_never_load_as_something_else() {
    let whole = torch_bin(&tensors());
    let sound = load_bytes(&config(), WeightsFormat::TorchBin, whole.clone()).unwrap();
    for length in 0..whole.len() {
        assert!(
            load_bytes(&config(), WeightsFormat::TorchBin, whole[..length].to_vec()).is_err(),
            "{length}"
        );
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A flip in a timestamp or the like changes nothing; one in a value must be caught by its checksum.
        if let Ok(loaded) = load_bytes(&config(), WeightsFormat::TorchBin, flipped) {
            assert_eq!(loaded.weights, sound.weights, "bit {bit}");
        }
    }
    assert_eq!(sound.weights.prompt().data(), tensors()[PROMPT].values);
    assert_eq!(sound.weights.prompt().data(), counting(&[2, 4], 0.0).values);
}
