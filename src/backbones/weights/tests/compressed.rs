use half::bf16;
use serde_json::{Value as Json, json};

use super::*;

fn group(targets: Json, input: Json) -> Json {
    json!({
        "targets": targets,
        "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false},
        "input_activations": input,
        "output_activations": null,
    })
}

fn input(bits: u8) -> Json {
    json!({"num_bits": bits, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true})
}

fn config() -> Json {
    json!({"model_type": "t5", "quantization_config": {
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "config_groups": {
            "group_0": group(json!(["Linear"]), input(8)),
            "group_1": group(json!(["lm_head", "re:.*\\.wo"]), input(16)),
            "group_2": group(json!(["Embedding"]), Json::Null),
        },
        "ignore": ["re:.*layer_norm", "skipped"], "kv_cache_scheme": null,
    }})
}

fn byte_layer(name: &'static str, scale: &'static str) -> [Raw; 2] {
    [
        (name, Dtype::I8, vec![2, 3], vec![1, 255, 127, 129, 0, 5]),
        (scale, Dtype::F32, vec![2, 1], f32s(&[0.5, 0.25])),
    ]
}

fn tensors() -> Vec<Raw> {
    let mut all = Vec::new();
    for (name, scale) in [
        ("q.weight", "q.weight_scale"),
        ("lm_head.weight", "lm_head.weight_scale"),
        ("0.wo.weight", "0.wo.weight_scale"),
        ("skipped.weight", "skipped.weight_scale"),
        ("shared.weight", "shared.weight_scale"),
    ] {
        all.extend(byte_layer(name, scale));
    }
    all.push(("plain.weight", Dtype::F32, vec![1, 1], f32s(&[2.0])));
    all
}

fn open(config: &Json, tensors: &[Raw]) -> Result<Weights, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), tensors);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Weights::open(folder.path())
}

#[test]
fn bytes_scales_and_bits_come_as_the_groups_say() {
    let weights = open(&config(), &tensors()).unwrap();
    let (values, scales) = (vec![1, -1, 127, -127, 0, 5], vec![0.5, 0.25]);
    for (module, activation_bits) in [("q", 8), ("lm_head", 15), ("0.wo", 15)] {
        let expected = RawLinear::I8 { values: values.clone(), scales: scales.clone(), activation_bits };
        assert_eq!(weights.linear(&MatrixRows::all(module, (2, 3))).unwrap(), expected, "{module}");
    }
    let second = MatrixRows { module: "q", shape: (2, 3), rows: 1..2 };
    let expected = RawLinear::I8 { values: values[3..].to_vec(), scales: vec![0.25], activation_bits: 8 };
    assert_eq!(weights.linear(&second).unwrap(), expected);
    assert_eq!(
        weights.linear(&MatrixRows::all("plain", (1, 1))).unwrap(),
        RawLinear::Floats(Floats::F32(vec![2.0]))
    );
    assert_eq!(
        weights.embedding(&MatrixRows::all("shared", (2, 3))).unwrap(),
        RawEmbedding::I8 { values, scales }
    );
    assert_eq!(weights.config().unwrap()["model_type"], "t5");
}

#[test]
fn bytes_without_a_group_are_refused() {
    let weights = open(&config(), &tensors()).unwrap();
    assert!(matches!(
        weights.linear(&MatrixRows::all("skipped", (2, 3))).unwrap_err(),
        WeightsError::Untargeted(_)
    ));
    let weights = open(&json!({}), &tensors()).unwrap();
    assert!(matches!(
        weights.linear(&MatrixRows::all("q", (2, 3))).unwrap_err(),
        WeightsError::Untargeted(_)
    ));
    assert!(matches!(
        weights.embedding(&MatrixRows::all("shared", (2, 3))).unwrap_err(),
        WeightsError::Untargeted(_)
    ));
    assert!(matches!(weights.tensor_f32("q.weight", &[2, 3]).unwrap_err(), WeightsError::Dtype { .. }));
}

#[test]
fn scales_are_checked() {
    let with_scale = |dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>| {
        let mut tensors = byte_layer("q.weight", "q.weight_scale").to_vec();
        tensors[1] = ("q.weight_scale", dtype, shape, bytes);
        open(&config(), &tensors).unwrap().linear(&MatrixRows::all("q", (2, 3)))
    };
    let brain = [1.0f32, 2.0].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    assert!(with_scale(Dtype::BF16, vec![2, 1], brain).is_ok());
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let error = with_scale(Dtype::F32, vec![2, 1], f32s(&[1.0, bad])).unwrap_err();
        assert!(matches!(error, WeightsError::Scale { row: 1, .. }), "{error}");
    }
    let error = with_scale(Dtype::F32, vec![1, 1], f32s(&[1.0])).unwrap_err();
    assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
    let only = &byte_layer("q.weight", "q.weight_scale")[..1];
    let error = open(&config(), only).unwrap().linear(&MatrixRows::all("q", (2, 3))).unwrap_err();
    assert!(error.to_string().contains("'q.weight_scale' is missing"), "{error}");
}

#[test]
fn what_can_t_be_honoured_is_refused_by_name() {
    let changes: [(&str, Json); 16] = [
        ("/quant_method", json!("gptq")),
        ("/format", json!("pack-quantized")),
        ("/kv_cache_scheme", json!({"num_bits": 8})),
        ("/config_groups", json!({})),
        ("/config_groups/group_0/targets", json!("Linear")),
        ("/config_groups/group_0/targets", json!(["re:(?=a)b"])),
        ("/config_groups/group_0/weights/num_bits", json!(4)),
        ("/config_groups/group_0/weights/type", json!("float")),
        ("/config_groups/group_0/weights/symmetric", json!(false)),
        ("/config_groups/group_0/weights/strategy", json!("group")),
        ("/config_groups/group_0/output_activations", input(8)),
        ("/config_groups/group_0/input_activations/num_bits", json!(4)),
        ("/config_groups/group_0/input_activations/dynamic", json!(false)),
        ("/config_groups/group_0/input_activations/strategy", json!("tensor")),
        ("/config_groups/group_0/input_activations/symmetric", json!(false)),
        ("/ignore", json!(3)),
    ];
    for (pointer, value) in changes {
        let mut config = config();
        *config.pointer_mut(&format!("/quantization_config{pointer}")).unwrap() = value;
        let message = open(&config, &tensors()).unwrap_err().to_string();
        let field = pointer[1..].replace('/', ".");
        assert!(message.contains(&format!("quantization_config.{field} is ")), "{pointer}: {message}");
    }
}

#[test]
fn weight_only_layers_are_refused_where_they_are_used() {
    let mut config = config();
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = Json::Null;
    let weights = open(&config, &tensors()).unwrap();
    let message = weights.linear(&MatrixRows::all("q", (2, 3))).unwrap_err().to_string();
    assert!(message.contains("group_0.input_activations") && message.contains("'q'"), "{message}");
    assert!(weights.linear(&MatrixRows::all("lm_head", (2, 3))).is_ok());
}
