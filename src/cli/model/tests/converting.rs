use std::fs;

use super::{super::flan_t5, *};
use crate::backbones::weights::{MatrixRows, RawEmbedding, RawLinear, Weights};

#[test]
fn the_folder_holds_the_graphs_weights_by_their_published_names() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = br#"{"truncation": {"max_length": 48}, "padding": {}, "model": {}}"#;
    flan_t5::convert(&graphs(), tokenizer, folder.path()).unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    let norm = weights.tensor_f32("encoder.block.0.layer.0.layer_norm.weight", &[2]).unwrap();
    assert_eq!(norm, [1.0, 2.0]);
    let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    assert_eq!(weights.tensor_f32(bias, &[1, 2]).unwrap(), [-2.0, 2.0]);
    // Stored (k, n) = (2, 3), read (n, k).
    let q = weights.linear(&MatrixRows::all("encoder.block.0.layer.0.SelfAttention.q", (3, 2))).unwrap();
    let expected =
        RawLinear::I8 { values: vec![1, 4, 2, 5, 3, -6], scales: vec![0.25; 3], activation_bits: 8 };
    assert_eq!(q, expected);
    let head = RawLinear::I8 { values: vec![7, 8], scales: vec![0.125], activation_bits: 15 };
    assert_eq!(weights.linear(&MatrixRows::all("lm_head", (1, 2))).unwrap(), head);
    // The last row leaves the grid: a scale of its own is nearer than clipping 155 to 127.
    let scale = (0.5 * (155.0f64 / 127.0)) as f32;
    let table = RawEmbedding::I8 { values: vec![0, 1, -1, 0, 127, 0], scales: vec![0.5, 0.5, scale] };
    assert_eq!(weights.embedding(&MatrixRows::all("shared", (3, 2))).unwrap(), table);
    assert_eq!(weights.config().unwrap()["vocab_size"], 3);
    let tokenizer = fs::read_to_string(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer, r#"{"truncation":null,"padding":null,"model":{}}"#);
}

#[test]
fn graphs_that_disagree_or_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let convert =
        |graphs: [Vec<u8>; 2]| flan_t5::convert(&graphs, b"{}", folder.path()).map_err(|e| format!("{e:#}"));
    let [encoder, _] = graphs();
    let other = proto::graph(&[quantised("enc.embed_tokens.weight", 2, &[3, 2], &[0; 6], 0.5, 0)]);
    assert!(convert([encoder.clone(), other]).unwrap_err().contains("'shared.weight' differ"));
    let short = proto::graph(&[quantised("enc.embed_tokens.weight", 2, &[3, 2], &[0; 5], 0.5, 0)]);
    assert!(convert([short, encoder.clone()]).unwrap_err().contains("5 values"));
    let alone = proto::graph(&[proto::tensor("x_quantized", 2, &[1, 1], &[0])]);
    assert!(convert([alone, encoder.clone()]).unwrap_err().contains("'x_scale' is missing"));
    assert!(convert([Vec::new(), Vec::new()]).unwrap_err().contains("no embedding table"));
    for length in 0..encoder.len() {
        assert!(convert([encoder[..length].to_vec(), Vec::new()]).is_err(), "{length}");
    }
}
