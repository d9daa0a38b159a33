use std::fs;

use super::{super::inspect::summarise, *};

#[test]
fn a_folder_is_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    super::super::flan_t5::convert(&graphs(), b"{}", folder.path()).unwrap();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let summary = summarise(folder.path()).unwrap();
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["architecture"], "T5ForConditionalGeneration");
    assert_eq!(json["dimensions"]["d_model"], 512);
    // A norm of 2, a bias of 2, matrices of 6 and 2, a table of 6; scales aside.
    assert_eq!((&json["parameters"], &json["tensors"]), (&18.into(), &8.into()));
    assert_eq!(json["dtypes"]["I8"]["bytes"], 14);
    assert_eq!(json["quantization"], "compressed-tensors int-quantized");
    assert_eq!(json["vocabulary"], serde_json::Value::Null);
    let table = summary.to_string();
    assert!(table.contains("I8                3             14             14"), "{table}");
}

#[test]
fn golden_files_are_summed_up() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let of = |name: &str| serde_json::to_value(summarise(&golden.join(name)).unwrap()).unwrap();
    let (folder, gguf) = (of("t5-v1_1"), of("t5-v1_1.q8_0.gguf"));
    assert_eq!(folder["parameters"], gguf["parameters"]);
    assert_eq!((&folder["format"], &gguf["format"]), (&"safetensors".into(), &"GGUF".into()));
    assert_eq!(gguf["architecture"], "t5");
    assert_eq!(gguf["dimensions"]["embedding_length"], folder["dimensions"]["d_model"]);
    assert_eq!(folder["vocabulary"], 126);
}

#[test]
fn what_can_t_be_opened_is_said() {
    let folder = tempfile::tempdir().unwrap();
    assert!(summarise(folder.path()).unwrap_err().to_string().contains("no weights in"));
}
