use std::fs;

use serde_json::json;

use super::{
    super::{
        Method, Update,
        assemble::{ADEPT_BIAS_A, ADEPT_BIAS_B, LOW_RANK_A, LOW_RANK_B, PROMPT, TASK_COLS, TASK_ROWS},
        folder,
        tensor_file::WeightsFormat,
    },
    support::{
        adept_tensors, config, config_with, counting, load, load_bytes, says, tensors, tensors_of, torch_bin,
        write_folder,
    },
};

#[test]
fn both_formats_give_the_same_adapter() {
    let a = load(&config(), &tensors()).unwrap();
    let b = load_bytes(&config(), WeightsFormat::TorchBin, torch_bin(&tensors())).unwrap();
    assert_eq!((&a.weights, &a.manifest), (&b.weights, &b.manifest));
    assert_eq!(a.weights.prompt().data(), counting(&[2, 4], 0.0).values);
    let pair = a.weights.low_rank().unwrap();
    assert_eq!((pair.a().row(4), pair.b().row(2)), (&[32.0, 33.0, 34.0][..], &[48.0, 49.0, 50.0, 51.0][..]));
    assert_eq!(pair.scale(), (8.0 / 3f64.sqrt()) as f32);
}

#[test]
fn missing_tensors_are_named_together() {
    let only = tensors_of([(PROMPT, counting(&[2, 4], 0.0))]);
    let parts = ["missing tensors", LOW_RANK_A, LOW_RANK_B, "r = 3", "holds 'prompt_embeddings'"];
    says(load(&config(), &only), &parts);
    let mut all = tensors();
    all.remove(PROMPT);
    says(load(&config(), &all), &["missing tensor 'prompt_embeddings'", "m = 2"]);
    says(load(&config(), &tensors_of([])), &["holds no tensors"]);
}

#[test]
fn superfluous_tensors_are_named() {
    let prompt_only = config_with(json!({ "peft_type": "PROMPT_TUNING", "r": null }));
    says(load(&prompt_only, &tensors()), &["unexpected tensor", LOW_RANK_A, "method pt"]);
    let mut more = tensors();
    more.insert("classifier.weight".into(), counting(&[1], 0.0));
    says(load(&config(), &more), &["unexpected tensor 'classifier.weight'"]);
}

#[test]
fn every_shape_must_be_the_declared_one() {
    let cases = [
        (PROMPT, vec![3, 4], "expected shape (2, 4), found (3, 4)"),
        (PROMPT, vec![4, 4], "expected shape (2, 4), found (4, 4)"),
        (PROMPT, vec![2, 5], "expected shape (2, 4), found (2, 5)"),
        (PROMPT, vec![8], "expected shape (2, 4), found (8)"),
        (PROMPT, vec![1, 2, 4], "expected shape (2, 4), found (1, 2, 4)"),
        (LOW_RANK_A, vec![6, 3], "expected shape (5, 3), found (6, 3)"),
        (LOW_RANK_A, vec![5, 2], "expected shape (5, 3), found (5, 2)"),
        (LOW_RANK_B, vec![4, 3], "expected shape (3, 4), found (4, 3)"),
        (LOW_RANK_B, vec![3, 5], "expected shape (3, 4), found (3, 5)"),
    ];
    for (name, shape, part) in cases {
        let mut tensors = tensors();
        tensors.insert(name.into(), counting(&shape, 0.0));
        says(load(&config(), &tensors), &[&format!("tensor '{name}'"), part]);
    }
}

#[test]
fn values_must_be_finite() {
    for (name, at, value) in
        [(PROMPT, 5, f32::NAN), (LOW_RANK_A, 0, f32::INFINITY), (LOW_RANK_B, 11, f32::NEG_INFINITY)]
    {
        let mut tensors = tensors();
        tensors.get_mut(name).unwrap().values[at] = value;
        says(load(&config(), &tensors), &[&format!("'{name}'"), "finite", &value.to_string()]);
    }
}

#[test]
fn twice_m_rows_are_halved() {
    let prompt = |rows: usize| tensors_of([(PROMPT, counting(&[rows, 4], 0.0))]);
    let config = |submodules: serde_json::Value, task: &str| {
        config_with(json!({
            "peft_type": "PROMPT_TUNING", "r": null, "task_type": task, "num_transformer_submodules": submodules
        }))
    };
    let null = serde_json::Value::Null;
    for (submodules, rows) in [(json!(2), 4), (null.clone(), 4), (null.clone(), 2), (json!(1), 2)] {
        let loaded = load(&config(submodules, "SEQ_2_SEQ_LM"), &prompt(rows)).unwrap();
        assert_eq!(loaded.weights.prompt().data(), counting(&[2, 4], 0.0).values);
    }
    says(load(&config(json!(2), "SEQ_2_SEQ_LM"), &prompt(2)), &["expected shape (4, 4), found (2, 4)"]);
    says(load(&config(json!(1), "SEQ_2_SEQ_LM"), &prompt(4)), &["expected shape (2, 4), found (4, 4)"]);
    says(load(&config(null.clone(), "SEQ_2_SEQ_LM"), &prompt(3)), &["expected shape (2, 4) or (4, 4)"]);
    says(load(&config(null, "CAUSAL_LM"), &prompt(4)), &["expected shape (2, 4), found (4, 4)"]);
}

#[test]
fn no_prompt_and_no_rank_may_be_saved_as_empty_tensors_or_left_out() {
    let low_rank_only = config_with(json!({ "num_virtual_tokens": 0 }));
    let mut tensors = tensors();
    tensors.insert(PROMPT.into(), counting(&[0, 4], 0.0));
    let with = load(&low_rank_only, &tensors).unwrap();
    tensors.remove(PROMPT);
    let without = load(&low_rank_only, &tensors).unwrap();
    assert_eq!(with.weights, without.weights);
    assert_eq!(
        (with.weights.prompt_length(), with.weights.hidden(), with.manifest.method),
        (0, 4, Method::LowRankOnly)
    );

    let plain = config_with(json!({ "r": 0 }));
    let loaded = load(
        &plain,
        &tensors_of([
            (PROMPT, counting(&[2, 4], 0.0)),
            (LOW_RANK_A, counting(&[5, 0], 0.0)),
            (LOW_RANK_B, counting(&[0, 4], 0.0)),
        ]),
    );
    assert_eq!(loaded.unwrap().weights.rank(), 0);
}

#[test]
fn adept_has_a_network_with_biases() {
    let lorax = config_with(json!({ "peft_type": "PROMPT_TUNING_LORAX", "max_length": null }));
    let biased = adept_tensors();
    let loaded = load(&lorax, &biased).unwrap();
    let Update::Adept(network) = loaded.weights.update() else { panic!("not ADePT") };
    assert_eq!((network.a().shape(), network.b().shape(), network.rank()), ((4, 3), (3, 4), 3));
    assert_eq!(network.bias_a().data(), [60.0, 61.0, 62.0]);
    assert_eq!(network.bias_b().data(), [70.0, 71.0, 72.0, 73.0]);
    assert_eq!((loaded.manifest.method, loaded.weights.max_length()), (Method::Adept, None));
    assert!(loaded.weights.updates_tokens());
    assert_eq!(loaded.weights.parameters(), 8 + 12 + 12 + 3 + 4);
    assert_eq!(
        load_bytes(&lorax, WeightsFormat::TorchBin, torch_bin(&biased)).unwrap().weights,
        loaded.weights
    );

    let mut wrong = biased.clone();
    wrong.insert(ADEPT_BIAS_A.into(), counting(&[4], 0.0));
    says(load(&lorax, &wrong), &["lora_embedding_a'", "expected shape (3), found (4)"]);
    wrong.remove(ADEPT_BIAS_A);
    says(
        load(&lorax, &wrong),
        &["missing tensor 'prompt_encoder.lora_embedding_a'", "method adept", "r = 3"],
    );
    let mut infinite = biased.clone();
    infinite.get_mut(ADEPT_BIAS_B).unwrap().values[1] = f32::INFINITY;
    says(load(&lorax, &infinite), &["lora_embedding_b'", "finite"]);
    let mut rows = biased.clone();
    rows.insert(LOW_RANK_A.into(), counting(&[5, 3], 0.0));
    says(load(&lorax, &rows), &["lora_embedding_A'", "expected shape (4, 3), found (5, 3)"]);
    says(load(&config(), &biased), &["unexpected tensor 'prompt_encoder.lora_embedding_a'", "method dept"]);
}

#[test]
fn adept_without_biases_is_told_from_dept_by_its_shape_or_the_config() {
    let mut by_hidden = tensors();
    by_hidden.insert(LOW_RANK_A.into(), counting(&[4, 3], 0.0));
    let adept = load(&config(), &by_hidden).unwrap();
    let Update::Adept(network) = adept.weights.update() else { panic!("not ADePT") };
    assert_eq!((network.bias_a().data(), network.bias_b().data()), (&[0.0; 3][..], &[0.0; 4][..]));
    assert_eq!((adept.manifest.method, adept.manifest.alpha()), (Method::Adept, None));
    let said = load(&config_with(json!({ "dept_variant": "adept" })), &by_hidden).unwrap();
    assert_eq!((&said.weights, said.manifest), (&adept.weights, adept.manifest));
    let not = config_with(json!({ "dept_variant": "dept" }));
    says(load(&not, &by_hidden), &["lora_embedding_A'", "expected shape (5, 3), found (4, 3)"]);

    let square = config_with(json!({ "max_length": 4 }));
    says(load(&square, &by_hidden), &["\"dept_variant\": \"dept\" or \"adept\"", "both 4", "(4, 3)"]);
    let sure = |variant| config_with(json!({ "max_length": 4, "dept_variant": variant }));
    assert_eq!(load(&sure("dept"), &by_hidden).unwrap().weights.max_length(), Some(4));
    assert_eq!(load(&sure("adept"), &by_hidden).unwrap().weights, adept.weights);
}

#[test]
fn a_multitask_prompt_collapses_to_one_task() {
    let tensors = tensors_of([
        (PROMPT, counting(&[2, 4], 1.0)),
        (TASK_COLS, counting(&[3, 2, 2], 0.0)),
        (TASK_ROWS, counting(&[3, 2, 4], -4.0)),
    ]);
    let mpt = |id: serde_json::Value| {
        config_with(json!({
            "peft_type": "MULTITASK_PROMPT_TUNING", "r": null, "num_tasks": 3, "num_ranks": 2, "dept_task_id": id
        }))
    };
    says(load(&mpt(serde_json::Value::Null), &tensors), &["3 tasks", "dept_task_id", "0 to 2"]);
    let loaded = load(&mpt(json!(1)), &tensors).unwrap();
    // Task 1: cols [[4, 5], [6, 7]], rows [[4, 5, 6, 7], [8, 9, 10, 11]].
    let factors = [56.0, 65.0, 74.0, 83.0, 80.0, 93.0, 106.0, 119.0];
    let expected: Vec<f32> = factors.iter().zip(1..).map(|(f, p)| f * p as f32).collect();
    assert_eq!(loaded.weights.prompt().data(), expected);
    assert_eq!((loaded.manifest.method, loaded.weights.rank()), (Method::Mpt, 0));

    let mut cut = tensors;
    cut.insert(TASK_COLS.into(), counting(&[2, 2, 2], 0.0));
    says(load(&mpt(json!(1)), &cut), &[TASK_COLS, "expected shape (3, 2, 2), found (2, 2, 2)"]);
}

#[test]
fn a_folder_needs_its_files() {
    let dir = tempfile::tempdir().unwrap();
    says(folder::load(&dir.path().join("gone")), &["gone", "not a folder"]);
    says(folder::load(dir.path()), &["adapter_config.json' is missing"]);
    fs::write(dir.path().join("adapter_config.json"), config().to_string()).unwrap();
    says(folder::load(dir.path()), &["adapter_model.safetensors' is missing", "adapter_model.bin"]);
    fs::write(dir.path().join("adapter_model.bin"), torch_bin(&tensors())).unwrap();
    assert_eq!(folder::load(dir.path()).unwrap().format, WeightsFormat::TorchBin);
    write_folder(dir.path(), &config(), &tensors(), Some("max_tokens = 3"));
    let loaded = folder::load(dir.path()).unwrap();
    assert_eq!((loaded.format, loaded.card.max_tokens), (WeightsFormat::Safetensors, Some(3)));
    fs::write(dir.path().join("card.toml"), "colour = 1").unwrap();
    says(folder::load(dir.path()), &["card.toml", "colour"]);
}

#[test]
fn a_file_in_place_of_the_folder_and_a_folder_in_place_of_a_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_folder(&dir.path().join("a"), &config(), &tensors(), None);
    says(folder::load(&dir.path().join("a/adapter_config.json")), &["not a folder"]);
    fs::remove_file(dir.path().join("a/adapter_model.safetensors")).unwrap();
    fs::create_dir(dir.path().join("a/adapter_model.safetensors")).unwrap();
    says(folder::load(&dir.path().join("a")), &["adapter_model.safetensors", "not a regular file"]);
}

#[test]
fn too_large_a_file_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path(), &config(), &tensors(), None);
    let file = fs::File::create(dir.path().join("adapter_model.safetensors")).unwrap();
    file.set_len((1 << 30) + 1).unwrap();
    says(folder::load(dir.path()), &["1073741825 bytes", "at most 1073741824"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_only_within_the_folder() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    write_folder(&inside, &config(), &tensors(), None);
    write_folder(&outside, &config(), &tensors(), None);
    fs::rename(inside.join("adapter_model.safetensors"), inside.join("weights")).unwrap();
    symlink("weights", inside.join("adapter_model.safetensors")).unwrap();
    assert!(folder::load(&inside).is_ok());
    fs::remove_file(inside.join("adapter_config.json")).unwrap();
    symlink("../outside/adapter_config.json", inside.join("adapter_config.json")).unwrap();
    says(folder::load(&inside), &["adapter_config.json", "link out of the adapter's folder"]);
    fs::remove_file(inside.join("adapter_config.json")).unwrap();
    symlink("nowhere", inside.join("adapter_config.json")).unwrap();
    says(folder::load(&inside), &["adapter_config.json", "can't be read"]);
}
