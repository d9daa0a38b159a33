use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

/// Writes GGUF files, good and bad.
#[derive(Default)]
struct Writer {
    pairs: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: Vec<u8>,
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
    bytes.extend(value.as_bytes());
    bytes
}

impl Writer {
    fn t5() -> Self {
        Self::default().pair("general.architecture", 8, &text("t5"))
    }

    fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.push([text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat());
        self
    }

    /// `dimensions` innermost first, as in the file.
    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, bytes: &[u8]) -> Self {
        self.tensors.push((name.into(), dimensions.to_vec(), kind, self.data.len() as u64));
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        out.extend(self.pairs.concat());
        for (name, dimensions, kind, offset) in &self.tensors {
            out.extend(text(name));
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

/// 32 values of Q8_0: a half scale and bytes.
fn q8_0(scale: f32, values: [i8; 32]) -> Vec<u8> {
    let mut block = f16::from_f32(scale).to_le_bytes().to_vec();
    block.extend(values.map(|v| v as u8));
    block
}

fn good() -> Writer {
    let ramp: [i8; 32] = std::array::from_fn(|i| i as i8 - 16);
    let halves: Vec<u8> =
        [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    Writer::t5()
        .pair("t5.block_count", 4, &2u32.to_le_bytes())
        .pair("t5.eps", 6, &0.5f32.to_le_bytes())
        .pair("flag", 7, &[1])
        .pair(
            "list",
            9,
            &[8u32.to_le_bytes().to_vec(), 2u64.to_le_bytes().to_vec(), text("a"), text("bc")].concat(),
        )
        .tensor("token_embd.weight", &[32, 2], 8, &[q8_0(0.5, ramp), q8_0(0.25, ramp)].concat())
        .tensor("enc.blk.1.attn_rel_b.weight", &[2, 3], 1, &halves)
        .tensor("dec.output_norm.weight", &[2], 0, &f32s(&[7.0, 8.0]))
}

fn open(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, bytes).unwrap();
    Weights::open(&path)
}

#[test]
fn short_floats_stay_short() {
    let numbers: Vec<u16> = (0..320).map(|at| at * 37 % 0x3c00).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let halves = |bits: &[u16]| Floats::F16(bits.iter().map(|&bits| f16::from_bits(bits)).collect());
    let brains = |bits: &[u16]| Floats::Bf16(bits.iter().map(|&bits| bf16::from_bits(bits)).collect());
    for width in [64, 40] {
        let (n, cut) = (320 / width, width..3 * width);
        let format = |format| (width == 64).then_some(format);
        for (kind, expected, format) in [
            (1, halves(&numbers[cut.clone()]), format(RowFormat::F16)),
            (30, brains(&numbers[cut.clone()]), format(RowFormat::Bf16)),
        ] {
            let file = Writer::t5().tensor("token_embd.weight", &[width as u64, n as u64], kind, &bytes);
            let weights = open(&file.bytes()).unwrap();
            let rows = MatrixRows { module: "shared", shape: (n, width), rows: 1..3 };
            assert_eq!(weights.linear(&rows).unwrap(), RawLinear::Floats(expected.clone()));
            assert_eq!(weights.embedding(&rows).unwrap(), RawEmbedding::Floats(expected.clone()));
            let wide = weights.tensor_f32("shared.weight", &[n, width]).unwrap();
            assert_eq!(wide[cut.clone()], expected.widened());
            // Rows that aren't whole blocks of a table are widened.
            assert_eq!(weights.rows("shared", n, width).unwrap(), format.map(|format| (format, &bytes[..])));
        }
    }
}

fn refusal(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err();
    assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
    error.to_string()
}

#[test]
fn some_rows_are_those_of_the_whole() {
    // 5 rows of 64: two blocks of Q4_1, of Q8_0, and of Q5_0, which has no reader of its own.
    let bytes = |size: usize| {
        let block = move |at: usize| {
            let mut block: Vec<u8> = (0..size).map(|byte| (at * 31 + byte * 7) as u8).collect();
            block[..2].copy_from_slice(&f16::from_f32(0.5 + at as f32).to_le_bytes());
            if size == 20 {
                block[2..4].copy_from_slice(&f16::from_f32(-1.5).to_le_bytes());
            }
            block
        };
        (0..10).flat_map(block).collect::<Vec<u8>>()
    };
    for (kind, size) in [(3, 20), (8, 34), (6, 22)] {
        let file = Writer::t5().tensor("token_embd.weight", &[64, 5], kind, &bytes(size));
        let weights = open(&file.bytes()).unwrap();
        let rows = |rows| MatrixRows { module: "shared", shape: (5, 64), rows };
        let all = weights.tensor_f32("shared.weight", &[5, 64]).unwrap();
        let values = all[64..4 * 64].to_vec();
        assert_eq!(weights.linear(&rows(1..4)).unwrap(), RawLinear::Blocks { values: values.clone() });
        assert_eq!(weights.embedding(&rows(1..4)).unwrap(), RawEmbedding::Blocks { values });
        let whole = weights.nibbles(&MatrixRows::all("shared", (5, 64))).unwrap();
        let expected = whole.map(|whole| RawNibbles {
            levels: whole.levels[64..4 * 64].to_vec(),
            scales: whole.scales[2..8].to_vec(),
            offsets: whole.offsets[2..8].to_vec(),
        });
        assert_eq!(weights.nibbles(&rows(1..4)).unwrap(), expected);
        let whole = weights.blocks_of_bytes(&MatrixRows::all("shared", (5, 64))).unwrap();
        let expected = whole.map(|whole| RawBytes {
            levels: whole.levels[64..4 * 64].to_vec(),
            scales: whole.scales[2..8].to_vec(),
        });
        assert_eq!(weights.blocks_of_bytes(&rows(1..4)).unwrap(), expected);
        assert_eq!((rows(1..4).told(), rows(0..5).told()), ("shared, outputs 1..4".into(), "shared".into()));
        let error = weights.linear(&MatrixRows { module: "shared", shape: (4, 64), rows: 0..1 });
        assert!(matches!(error, Err(WeightsError::Shape { .. })), "{error:?}");
    }
}

#[test]
fn tensors_are_found_by_their_hugging_face_names() {
    let weights = open(&good().bytes()).unwrap();
    let table = weights.tensor_f32("shared.weight", &[2, 32]).unwrap();
    let expected: Vec<f32> =
        (0..64).map(|i| (i % 32 - 16) as f32 * if i < 32 { 0.5 } else { 0.25 }).collect();
    assert_eq!(table, expected);
    let name = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";
    assert_eq!(weights.tensor_f32(name, &[3, 2]).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(weights.tensor_f32("decoder.final_layer_norm.weight", &[2]).unwrap(), [7.0, 8.0]);
    let message = weights.linear(&MatrixRows::all("lm_head", (2, 2))).unwrap_err().to_string();
    assert!(message.contains("'output.weight' is missing"), "{message}");

    let metadata = weights.metadata().unwrap();
    assert_eq!((metadata.architecture(), metadata.int("t5.block_count")), ("t5", Some(2)));
    assert_eq!((metadata.float("t5.eps"), metadata.bool("flag")), (Some(0.5), Some(true)));
    assert_eq!(metadata.texts("list").unwrap(), ["a", "bc"]);
}

#[test]
fn every_t5_name_is_known() {
    let gated = |name: &str| gguf_names::stored_name("t5", name, |_| true);
    let plain = |name: &str| gguf_names::stored_name("t5", name, |_| false);
    for (name, stored) in [
        ("encoder.block.0.layer.0.layer_norm", "enc.blk.0.attn_norm"),
        ("encoder.block.11.layer.0.SelfAttention.q", "enc.blk.11.attn_q"),
        ("encoder.block.0.layer.1.layer_norm", "enc.blk.0.ffn_norm"),
        ("encoder.block.0.layer.1.DenseReluDense.wi_0", "enc.blk.0.ffn_gate"),
        ("encoder.block.0.layer.1.DenseReluDense.wi_1", "enc.blk.0.ffn_up"),
        ("encoder.block.0.layer.1.DenseReluDense.wo", "enc.blk.0.ffn_down"),
        ("decoder.block.0.layer.0.SelfAttention.o", "dec.blk.0.attn_o"),
        ("decoder.block.0.layer.1.layer_norm", "dec.blk.0.cross_attn_norm"),
        ("decoder.block.0.layer.1.EncDecAttention.v", "dec.blk.0.cross_attn_v"),
        ("decoder.block.0.layer.2.layer_norm", "dec.blk.0.ffn_norm"),
        ("decoder.block.0.layer.2.DenseReluDense.wo", "dec.blk.0.ffn_down"),
        ("lm_head", "output"),
    ] {
        assert_eq!(gated(&format!("{name}.weight")).unwrap(), format!("{stored}.weight"));
    }
    let wi = "decoder.block.0.layer.2.DenseReluDense.wi.weight";
    assert_eq!((plain(wi).as_deref(), gated(wi)), (Some("dec.blk.0.ffn_up.weight"), None));
    for unknown in [
        "",
        "x.weight",
        "encoder.block.x.layer.0.layer_norm.weight",
        "encoder.block.0.layer.2.layer_norm.weight",
    ] {
        assert_eq!(gated(unknown), None, "{unknown}");
    }
}

#[test]
fn decoder_names_are_known() {
    let stored = |architecture, name: &str| gguf_names::stored_name(architecture, name, |_| true);
    for (architecture, name, expected) in [
        ("gpt2", "transformer.wpe.weight", "position_embd.weight"),
        ("gpt2", "transformer.h.11.attn.c_attn.bias", "blk.11.attn_qkv.bias"),
        ("gpt2", "transformer.ln_f.bias", "output_norm.bias"),
        ("llama", "model.layers.3.mlp.up_proj.weight", "blk.3.ffn_up.weight"),
        ("llama", "model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
        ("llama", "rope_freqs.weight", "rope_freqs.weight"),
        ("qwen2", "model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias"),
        ("qwen3", "model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"),
        ("gemma2", "model.layers.9.post_feedforward_layernorm.weight", "blk.9.post_ffw_norm.weight"),
        ("gemma3", "model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"),
        ("gemma3", "model.layers.0.pre_feedforward_layernorm.weight", "blk.0.ffn_norm.weight"),
        ("gemma3", "model.embed_tokens.weight", "token_embd.weight"),
    ] {
        assert_eq!(stored(architecture, name).as_deref(), Some(expected), "{architecture}");
    }
    for (architecture, name) in [
        ("llama", "model.layers.x.mlp.up_proj.weight"),
        ("llama", "model.layers.0.attn.c_attn.weight"),
        ("llama", "model.norm.scale"),
        ("mamba", "model.norm.weight"),
    ] {
        assert_eq!(stored(architecture, name), None, "{name}");
    }
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let whole = good().bytes();
    let used = whole.len() - 24; // the last tensor's padding may be missing
    for length in 4..used {
        refusal(&whole[..length]);
    }
    assert!(open(&whole[..used]).is_ok());
}

#[test]
fn absurd_counts_and_lengths_are_refused() {
    let whole = good().bytes();
    for (at, what) in [(8, "tensors"), (16, "metadata pairs"), (24, "bytes of text")] {
        for count in [u64::MAX, 1 << 40, whole.len() as u64] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let message = refusal(&bytes);
            assert!(message.contains(&format!("claims {count} {what}")), "{message}");
        }
    }
    let mut bytes = whole.clone();
    bytes[4] = 9;
    assert!(refusal(&bytes).contains("GGUF version 9"));
    let list = [0u32.to_le_bytes().to_vec(), u64::MAX.to_le_bytes().to_vec()].concat();
    assert!(refusal(&Writer::t5().pair("l", 9, &list).bytes()).contains("array elements"));
    let nested = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat();
    assert!(refusal(&Writer::t5().pair("l", 9, &nested).bytes()).contains("type 9"));
    assert!(refusal(&Writer::t5().pair("flag", 7, &[2]).bytes()).contains("boolean 2"));
    assert!(refusal(&Writer::t5().pair("k", 99, &[0; 8]).bytes()).contains("unknown type 99"));
    assert!(refusal(&Writer::t5().pair("general.architecture", 7, &[1]).bytes()).contains("twice"));
}

#[test]
fn tensors_that_lie_are_refused() {
    let four = f32s(&[1.0; 8]);
    let with = |dimensions: &[u64], kind: u32| Writer::t5().tensor("x", dimensions, kind, &four);
    assert!(refusal(&with(&[9], 0).bytes()).contains("behind the file's end"));
    assert!(refusal(&with(&[u64::MAX, 2], 0).bytes()).contains("whole F32 blocks"));
    assert!(refusal(&with(&[1 << 32, 1 << 32], 0).bytes()).contains("whole F32 blocks"));
    assert!(refusal(&with(&[16], 8).bytes()).contains("whole Q8_0 blocks"));
    assert!(refusal(&with(&[16, 2], 8).bytes()).contains("whole Q8_0 blocks"));
    assert!(refusal(&with(&[1, 1, 1, 1, 1], 0).bytes()).contains("5 dimensions"));
    assert!(refusal(&with(&[8], 77).bytes()).contains("type number 77"));
    let at = |offset: u64| {
        let mut writer = with(&[2], 0).tensor("y", &[2], 0, &four);
        writer.tensors[1].3 = offset;
        writer.bytes()
    };
    assert!(refusal(&at(0)).contains("overlap"));
    assert!(refusal(&at(3)).contains("odd offset"));
    assert!(refusal(&at(u64::MAX)).contains("behind the file's end"));
    let mut twice = with(&[2], 0).tensor("x", &[2], 0, &four);
    assert!(refusal(&twice.bytes()).contains("'x' comes twice"));
    twice.tensors.pop();
    for alignment in [0u32, 1, 12, u32::MAX] {
        let message = refusal(&with(&[2], 0).pair("general.alignment", 4, &alignment.to_le_bytes()).bytes());
        assert!(message.contains("general.alignment"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_never_panics(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = good().bytes();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[4 + at % (length - 4)] = byte;
        }
        if let Ok(weights) = open(&bytes) {
            for entry in weights.tensors.values() {
                let stored = &weights.files[0].bytes()[entry.range.clone()];
                prop_assert!(entry.format.to_floats(stored, &entry.shape).is_some());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = gguf::parse(&[b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
        let _ = gguf::parse(&bytes);
    }
}
