use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;

fn simple() -> Vec<Raw> {
    vec![
        ("a.weight", Dtype::F32, vec![2, 3], f32s(&[1.0, -2.0, 0.5, 3.25, 0.0, -0.0])),
        (
            "half",
            Dtype::F16,
            vec![2],
            [1.5, -2.0].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        ),
        (
            "brain",
            Dtype::BF16,
            vec![2],
            [1.5, -2.0].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        ),
        ("ids", Dtype::I64, vec![1], 7i64.to_le_bytes().to_vec()),
    ]
}

#[test]
fn floats_come_as_stored() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &simple());
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.tensor_f32("a.weight", &[2, 3]).unwrap(), [1.0, -2.0, 0.5, 3.25, 0.0, -0.0]);
    assert_eq!(weights.tensor_f32("half", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(weights.tensor_f32("brain", &[2]).unwrap(), [1.5, -2.0]);
    let expected = RawLinear::Floats(Floats::F32(vec![1.0, -2.0, 0.5, 3.25, 0.0, -0.0]));
    assert_eq!(weights.linear(&MatrixRows::all("a", (2, 3))).unwrap(), expected);
    assert!(weights.contains("a.weight") && !weights.contains("b.weight"));
    assert_eq!(weights.tensors().map(|t| t.bytes).sum::<usize>(), 24 + 4 + 4 + 8);
    let digest = hex(&Sha256::digest(fs::read(folder.path().join("model.safetensors")).unwrap()));
    assert_eq!(weights.fingerprint(), digest);
}

#[test]
fn a_disagreement_names_tensor_expected_and_found() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &simple());
    let weights = Weights::open(folder.path()).unwrap();
    let message = weights.tensor_f32("a.weight", &[3, 2]).unwrap_err().to_string();
    assert!(
        message.contains("'a.weight'") && message.contains("[2, 3]") && message.contains("[3, 2]"),
        "{message}"
    );
    let message = weights.tensor_f32("ids", &[1]).unwrap_err().to_string();
    assert!(message.contains("'ids'") && message.contains("I64"), "{message}");
    let message = weights.tensor_f32("gone", &[1]).unwrap_err().to_string();
    assert!(message.contains("'gone'") && message.contains(folder.path().to_str().unwrap()), "{message}");
}

fn write_index(folder: &Path, map: serde_json::Value) {
    let index = json!({"metadata": {"total_size": 8}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_are_read_through_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let one = [("x", Dtype::F32, vec![1], f32s(&[1.0]))];
    let two = [("y", Dtype::F32, vec![1], f32s(&[2.0]))];
    fs::write(folder.path().join("m-1.safetensors"), safetensors_bytes(&one)).unwrap();
    fs::write(folder.path().join("m-2.safetensors"), safetensors_bytes(&two)).unwrap();
    write_index(folder.path(), json!({"x": "m-1.safetensors", "y": "m-2.safetensors"}));
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.tensor_f32("x", &[1]).unwrap(), [1.0]);
    assert_eq!(weights.tensor_f32("y", &[1]).unwrap(), [2.0]);
    let digests: Vec<u8> =
        [one, two].iter().flat_map(|t| Sha256::digest(safetensors_bytes(t)).to_vec()).collect();
    assert_eq!(weights.fingerprint(), hex(&Sha256::digest(digests)));

    fs::write(folder.path().join("m-2.safetensors"), safetensors_bytes(&one_again())).unwrap();
    let message = open_error(folder.path());
    assert!(message.contains("'x' is in") && message.contains("m-2"), "{message}");

    fs::remove_file(folder.path().join("m-2.safetensors")).unwrap();
    let message = open_error(folder.path());
    assert!(message.contains("m-2.safetensors") && message.contains("missing"), "{message}");
}

fn one_again() -> Vec<Raw> {
    vec![("x", Dtype::F32, vec![1], f32s(&[3.0]))]
}

#[test]
fn an_index_can_t_leave_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    let secret = outer.path().join("x.safetensors");
    fs::write(&secret, safetensors_bytes(&one_again())).unwrap();
    let absolute = secret.to_str().unwrap();
    for escape in ["../x.safetensors", absolute, "a/../../x.safetensors", "sub/x.safetensors", "..", ".", ""]
    {
        write_index(&folder, json!({"x": escape}));
        let error = Weights::open(&folder).unwrap_err();
        assert!(matches!(error, WeightsError::ShardOutside { .. }), "{escape}: {error}");
    }
    for nonsense in [json!({}), json!([]), json!({"x": 3})] {
        write_index(&folder, nonsense);
        assert!(open_error(&folder).contains("weight_map"));
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Weights::open(folder.path()).unwrap_err(), WeightsError::NoWeights(_)));
    let absent = folder.path().join("absent");
    assert!(matches!(Weights::open(&absent).unwrap_err(), WeightsError::Io { .. }));
    let text = folder.path().join("notes.gguf");
    fs::write(&text, "not weights").unwrap();
    assert!(matches!(Weights::open(&text).unwrap_err(), WeightsError::NoWeights(_)));
    write_model(folder.path(), &simple());
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert!(open_error(folder.path()).contains("config.json"));
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = safetensors_bytes(&simple());
    let path = folder.path().join("model.safetensors");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(
            matches!(Weights::open(folder.path()).unwrap_err(), WeightsError::Malformed { .. }),
            "{length}"
        );
    }
}

#[test]
fn offsets_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |begin: u64, end: u64| json!({"dtype": "F32", "shape": [1], "data_offsets": [begin, end]});
    let huge = json!({"dtype": "F32", "shape": [u64::MAX, 4], "data_offsets": [0, 8]});
    let headers = [
        json!({"a": tensor(0, 4), "b": tensor(0, 4)}),
        json!({"a": tensor(0, 4), "b": tensor(2, 6)}),
        json!({"a": tensor(0, 4), "b": tensor(8, 12)}),
        json!({"a": tensor(4, 0)}),
        json!({"a": tensor(0, u64::MAX)}),
        json!({"a": tensor(0, 8)}),
        json!({"a": huge}),
    ];
    for header in headers {
        let header = header.to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend([0; 8]);
        fs::write(folder.path().join("model.safetensors"), file).unwrap();
        assert!(
            matches!(Weights::open(folder.path()).unwrap_err(), WeightsError::Malformed { .. }),
            "{header}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_never_panics(at in 0usize..400, byte: u8) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = safetensors_bytes(&simple());
        let at = at % bytes.len();
        bytes[at] = byte;
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        if let Ok(weights) = Weights::open(folder.path()) {
            for info in weights.tensors() {
                let _ = weights.tensor_f32(info.name, info.shape);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        let _ = Weights::open(folder.path());
    }
}
