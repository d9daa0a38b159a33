use serde_json::{Value, json};

use super::{
    super::{
        Manifest, Method, Task,
        manifest::{LowRankShape, ManifestError, UpdateShape},
    },
    support::{config_with, says},
};

fn parse(config: Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(config.to_string().as_bytes())
}

#[test]
fn the_scale_divides_by_the_root_of_the_rank() {
    let manifest = parse(config_with(json!({ "r": 30, "lora_alpha": 8 }))).unwrap();
    let shape = LowRankShape { rank: 30, max_length: 5, alpha: 8.0 };
    assert_eq!((manifest.update, manifest.alpha()), (UpdateShape::LowRankOrAdept(shape), Some(8.0)));
    assert_eq!(shape.scale(), (8.0 / 30f64.sqrt()) as f32);
    assert_eq!((manifest.method, manifest.task), (Method::Dept, Task::Seq2SeqLm));
    assert_eq!(manifest.base_model.as_deref(), Some("tiny"));
}

#[test]
fn no_rank_is_prompt_tuning_and_no_prompt_is_low_rank_only() {
    let plain = parse(config_with(json!({ "r": 0, "lora_alpha": null, "max_length": null }))).unwrap();
    assert_eq!((plain.method, plain.update, plain.alpha()), (Method::PromptTuning, UpdateShape::None, None));
    let alone = parse(config_with(json!({ "num_virtual_tokens": 0 }))).unwrap();
    assert_eq!((alone.method, alone.prompt_length, alone.alpha()), (Method::LowRankOnly, 0, Some(8.0)));
    says(
        parse(config_with(json!({ "num_virtual_tokens": 0, "r": 0 }))),
        &["num_virtual_tokens", "at least 1"],
    );
}

#[test]
fn every_method_has_its_peft_type() {
    for (peft_type, method) in [("PROMPT_TUNING", Method::PromptTuning), ("P_TUNING", Method::PTuning)] {
        let manifest = parse(config_with(json!({ "peft_type": peft_type, "r": null }))).unwrap();
        assert_eq!((manifest.method, manifest.update), (method, UpdateShape::None));
        let message = says(parse(config_with(json!({ "peft_type": peft_type }))), &["'r'", "found 3"]);
        assert!(message.contains("PROMPT_TUNING_LORA"), "{message}");
    }
    let mpt = json!({ "peft_type": "MULTITASK_PROMPT_TUNING", "r": null, "num_tasks": 1, "num_ranks": 2 });
    let multitask = parse(config_with(mpt)).unwrap().multitask.unwrap();
    assert_eq!((multitask.tasks, multitask.ranks, multitask.task_id), (1, 2, Some(0)));
    let lorax = json!({ "peft_type": "PROMPT_TUNING_LORAX", "lora_alpha": null, "max_length": null });
    for (changes, biases) in [(lorax, true), (json!({ "dept_variant": "adept" }), false)] {
        let adept = parse(config_with(changes)).unwrap();
        assert_eq!((adept.method, adept.update), (Method::Adept, UpdateShape::Adept { rank: 3, biases }));
        assert_eq!(adept.alpha(), None);
    }
    says(
        parse(config_with(json!({ "peft_type": "PROMPT_TUNING_LORAX", "r": 0 }))),
        &["'r'", "from 1", "found 0"],
    );
    says(parse(config_with(json!({ "dept_variant": "lora" }))), &["dept_variant", "\"adept\"", "found lora"]);
    says(
        parse(config_with(json!({ "peft_type": "LORA" }))),
        &["peft_type", "PROMPT_TUNING_LORA", "found LORA"],
    );
}

#[test]
fn a_task_is_picked_within_its_number() {
    let config = |id: Value| {
        config_with(
            json!({ "peft_type": "MULTITASK_PROMPT_TUNING", "r": null, "num_tasks": 3, "dept_task_id": id }),
        )
    };
    assert_eq!(parse(config(json!(2))).unwrap().multitask.unwrap().task_id, Some(2));
    let open = parse(config(Value::Null)).unwrap();
    assert_eq!(open.multitask.unwrap().task_id, None);
    assert_eq!(open.clone().with_task(1).unwrap().multitask.unwrap().task_id, Some(1));
    says(open.with_task(3), &["num_tasks", "found 3"]);
    says(parse(config(json!(3))), &["dept_task_id", "from 0 to 2", "found 3"]);
    says(parse(config_with(json!({}))).unwrap().with_task(0), &["num_tasks", "found 0"]);
}

#[test]
fn missing_fields_are_named() {
    for field in
        ["peft_type", "task_type", "num_virtual_tokens", "token_dim", "r", "lora_alpha", "max_length"]
    {
        says(parse(config_with(json!({ field: null }))), &[&format!("'{field}' is missing"), "expected"]);
    }
}

#[test]
fn absurd_values_are_named_with_what_was_expected() {
    let cases = [
        ("num_virtual_tokens", json!(-1), "found -1"),
        ("num_virtual_tokens", json!(1.5), "found 1.5"),
        ("num_virtual_tokens", json!(1e300), "1e+300"),
        ("num_virtual_tokens", json!("60"), "found \"60\""),
        ("num_virtual_tokens", json!(99_999_999), "from 0 to 16384"),
        ("r", json!(u64::MAX), "found 18446744073709551615"),
        ("r", json!([1]), "found [1]"),
        ("max_length", json!(0), "from 1 to 1048576"),
        ("token_dim", json!(0), "from 1 to 65536"),
        ("token_dim", json!(true), "found true"),
        ("lora_alpha", json!(0), "other than 0"),
        ("lora_alpha", json!(1e30), "found 1e+30"),
        ("lora_alpha", json!("8"), "found \"8\""),
        ("num_transformer_submodules", json!(3), "from 1 to 2"),
        ("hidden_size", json!(5), "4 like token_dim"),
        ("task_type", json!("SEQ_CLS"), "found SEQ_CLS"),
        ("task_type", json!(1), "expected a string, found 1"),
        ("base_model_name_or_path", json!({}), "expected a string"),
        ("dept_variant", json!("lora"), "found lora"),
    ];
    for (field, value, part) in cases {
        says(parse(config_with(json!({ field: value }))), &[&format!("'{field}'"), part]);
    }
}

#[test]
fn what_is_no_object_or_says_a_thing_twice_is_refused() {
    for text in ["", "[]", "null", "{", "{\"r\": NaN}", "\u{feff}{}", "{\"r\":1,\"r\":2}", "{} {}"] {
        assert!(matches!(Manifest::parse(text.as_bytes()), Err(ManifestError::Json(_))), "{text}");
    }
    assert!(matches!(Manifest::parse(&[0xff, 0xfe]), Err(ManifestError::Json(_))));
    let deep = "[".repeat(100_000);
    assert!(matches!(Manifest::parse(format!("{{\"x\":{deep}").as_bytes()), Err(ManifestError::Json(_))));
    let long = "x".repeat(10_000);
    let message = says(parse(config_with(json!({ "peft_type": long }))), &["peft_type"]);
    assert!(message.len() < 400, "{}", message.len());
}
