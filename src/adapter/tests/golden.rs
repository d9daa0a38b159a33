//! Real adapters: those that DePT's authors released, and those that PEFT saved.

use std::path::{Path, PathBuf};

use super::{
    super::{LoadedAdapter, Method, folder, version::version},
    support::says,
};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

#[test]
fn the_official_sst2_loads() {
    let loaded = folder::load(&golden("official/sst2")).unwrap();
    let weights = &loaded.weights;
    assert_eq!((weights.prompt_length(), weights.rank(), weights.max_length()), (60, 30, Some(256)));
    assert_eq!((weights.hidden(), weights.parameters(), loaded.manifest.method), (768, 76_800, Method::Dept));
    assert_eq!(loaded.manifest.base_model.as_deref(), Some("t5-base"));
    // Computed apart, with torch and hashlib, by the rule that the version module states.
    assert_eq!(
        version(&loaded.manifest, weights, &loaded.card).hex(),
        "7ff71de10f2a5010ea97c9e35b84c3bc592e99bfc9a3bf97ce106af1ec6b595f"
    );
}

#[test]
fn the_official_wic_is_refused_with_the_names_of_what_it_lacks() {
    says(
        folder::load(&golden("official/wic")),
        &[
            "adapter_model.bin",
            "missing tensors",
            "'prompt_encoder.lora_embedding_A'",
            "'prompt_encoder.lora_embedding_B'",
        ],
    );
}

fn peft(model: &str, folder: &str, task: Option<usize>) -> LoadedAdapter {
    folder::load_task(&golden(&format!("adapters/{model}/{folder}")), task).unwrap()
}

#[test]
fn every_saved_method_loads() {
    for model in ["t5-v1_0", "t5-v1_1"] {
        for (name, method) in [
            ("dept", Method::Dept),
            ("dept-bin", Method::Dept),
            ("lowrank", Method::LowRankOnly),
            ("lowrank-nokey", Method::LowRankOnly),
            ("pt", Method::PromptTuning),
            ("ptuning", Method::PTuning),
        ] {
            let loaded = peft(model, name, None);
            assert_eq!(loaded.manifest.method, method, "{model}/{name}");
            assert_eq!(loaded.weights.prompt_length(), loaded.manifest.prompt_length);
        }
        let [safetensors, bin] = ["dept", "dept-bin"].map(|name| peft(model, name, None));
        assert_eq!(safetensors.weights, bin.weights);
        let [a, b] = [&safetensors, &bin].map(|x| version(&x.manifest, &x.weights, &x.card));
        assert_eq!(a, b);
        assert_eq!(peft(model, "lowrank", None).weights, peft(model, "lowrank-nokey", None).weights);
        assert_eq!(peft(model, "mpt", Some(0)).manifest.method, Method::Mpt);
    }
}

#[test]
fn peft_s_prompts_hold_twice_the_rows_for_encoder_decoders() {
    let loaded = peft("t5-v1_0", "pt", None);
    let rows = loaded.tensors.iter().find(|(name, _)| name == "prompt_embeddings").unwrap().1.shape[0];
    assert_eq!((rows, loaded.weights.prompt_length()), (14, 7));
}

#[test]
fn a_multitask_prompt_of_several_tasks_needs_a_choice() {
    says(folder::load(&golden("adapters/t5-v1_1/mpt")), &["3 tasks", "dept_task_id"]);
    assert_ne!(peft("t5-v1_1", "mpt", Some(0)).weights, peft("t5-v1_1", "mpt", Some(2)).weights);
}
