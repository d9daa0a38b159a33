//! The fields of `adapter_config.json`, one by one and against each other.

use serde::Deserialize;
use serde_json::Value;

use super::{
    LowRankShape, MAX_ALPHA, MAX_HIDDEN, MAX_LENGTH, MAX_PROMPT_LENGTH, MAX_RANK, MAX_TASKS, Manifest,
    ManifestError, Method, Multitask, TASK_KEY, Task, UpdateShape, VARIANT_KEY,
};

/// The fields that are read; a field named twice is an error.
#[derive(Deserialize)]
struct Raw {
    peft_type: Option<Value>,
    task_type: Option<Value>,
    num_virtual_tokens: Option<Value>,
    token_dim: Option<Value>,
    hidden_size: Option<Value>,
    r: Option<Value>,
    lora_alpha: Option<Value>,
    max_length: Option<Value>,
    num_transformer_submodules: Option<Value>,
    num_tasks: Option<Value>,
    num_ranks: Option<Value>,
    dept_task_id: Option<Value>,
    dept_variant: Option<Value>,
    base_model_name_or_path: Option<Value>,
}

/// From the bytes of the file.
pub(super) fn manifest(json: &[u8]) -> Result<Manifest, ManifestError> {
    let raw: Raw = serde_json::from_slice(json)?;
    let peft_type = need_text("peft_type", &raw.peft_type, "the method, such as \"PROMPT_TUNING_LORA\"")?;
    let task = task(&raw)?;
    let prompt_length = need_count("num_virtual_tokens", &raw.num_virtual_tokens, 0, MAX_PROMPT_LENGTH)?;
    let hidden = hidden(&raw)?;
    let submodules = submodules(&raw, task)?;
    let base_model = text("base_model_name_or_path", &raw.base_model_name_or_path)?.map(str::to_owned);
    let update = match peft_type {
        "PROMPT_TUNING_LORA" => low_rank(&raw)?,
        "PROMPT_TUNING_LORAX" => adept(&raw, true)?,
        "PROMPT_TUNING" | "P_TUNING" | "MULTITASK_PROMPT_TUNING" => no_update(&raw)?,
        other => {
            return Err(ManifestError::Field {
                field: "peft_type",
                expected:
                    "PROMPT_TUNING_LORA (DePT), PROMPT_TUNING_LORAX (ADePT), PROMPT_TUNING, P_TUNING or \
                           MULTITASK_PROMPT_TUNING"
                        .into(),
                found: clip(other),
            });
        }
    };
    let method = method(peft_type, prompt_length, update);
    let multitask = (method == Method::Mpt).then(|| multitask(&raw)).transpose()?;
    if prompt_length == 0 && update == UpdateShape::None {
        return Err(ManifestError::Field {
            field: "num_virtual_tokens",
            expected: "at least 1, as there is no low-rank pair (r > 0) beside the prompt".into(),
            found: "0".into(),
        });
    }
    Ok(Manifest { method, task, prompt_length, hidden, update, multitask, submodules, base_model })
}

/// The method by what it amounts to: a pair of rank 0 is none, and no prompt beside a pair is the pair alone.
fn method(peft_type: &str, prompt_length: usize, update: UpdateShape) -> Method {
    match (update, peft_type) {
        (UpdateShape::Adept { .. }, _) => Method::Adept,
        (UpdateShape::LowRank(_) | UpdateShape::LowRankOrAdept(_), _) if prompt_length == 0 => {
            Method::LowRankOnly
        }
        (UpdateShape::LowRank(_) | UpdateShape::LowRankOrAdept(_), _) => Method::Dept,
        (UpdateShape::None, "P_TUNING") => Method::PTuning,
        (UpdateShape::None, "MULTITASK_PROMPT_TUNING") => Method::Mpt,
        (UpdateShape::None, _) => Method::PromptTuning,
    }
}

fn task(raw: &Raw) -> Result<Task, ManifestError> {
    const EXPECTED: &str = "\"SEQ_2_SEQ_LM\" or \"CAUSAL_LM\"";
    match need_text("task_type", &raw.task_type, EXPECTED)? {
        "SEQ_2_SEQ_LM" => Ok(Task::Seq2SeqLm),
        "CAUSAL_LM" => Ok(Task::CausalLm),
        other => {
            Err(ManifestError::Field { field: "task_type", expected: EXPECTED.into(), found: clip(other) })
        }
    }
}

/// `token_dim`, which `hidden_size` (written by DePT's own code) must not contradict.
fn hidden(raw: &Raw) -> Result<usize, ManifestError> {
    let hidden = need_count("token_dim", &raw.token_dim, 1, MAX_HIDDEN)?;
    match count("hidden_size", &raw.hidden_size, 1, MAX_HIDDEN)? {
        Some(other) if other != hidden => Err(ManifestError::Field {
            field: "hidden_size",
            expected: format!("{hidden} like token_dim"),
            found: other.to_string(),
        }),
        _ => Ok(hidden),
    }
}

fn submodules(raw: &Raw, task: Task) -> Result<Option<usize>, ManifestError> {
    let most = if task == Task::Seq2SeqLm { 2 } else { 1 };
    count("num_transformer_submodules", &raw.num_transformer_submodules, 1, most)
}

/// The pair that `PROMPT_TUNING_LORA` declares; r = 0 declares none and needs no other field. ADePT without biases bears the
/// same name: the config may say which one it is, else the shape of A does.
fn low_rank(raw: &Raw) -> Result<UpdateShape, ManifestError> {
    let rank = need_count("r", &raw.r, 0, MAX_RANK)?;
    let variant = text(VARIANT_KEY, &raw.dept_variant)?;
    if !matches!(variant, None | Some("dept" | "adept")) {
        let (expected, found) = ("\"dept\" or \"adept\"".into(), clip(variant.unwrap_or_default()));
        return Err(ManifestError::Field { field: VARIANT_KEY, expected, found });
    }
    if rank == 0 {
        return Ok(UpdateShape::None);
    }
    if variant == Some("adept") {
        return adept(raw, false);
    }
    let max_length = need_count("max_length", &raw.max_length, 1, MAX_LENGTH)?;
    let shape = LowRankShape { rank, max_length, alpha: alpha(raw)? };
    Ok(if variant.is_some() { UpdateShape::LowRank(shape) } else { UpdateShape::LowRankOrAdept(shape) })
}

/// ADePT's network. It has neither scale nor longest input, whatever its config carries along.
fn adept(raw: &Raw, biases: bool) -> Result<UpdateShape, ManifestError> {
    Ok(UpdateShape::Adept { rank: need_count("r", &raw.r, 1, MAX_RANK)?, biases })
}

fn alpha(raw: &Raw) -> Result<f64, ManifestError> {
    let expected = || format!("a number between -{MAX_ALPHA} and {MAX_ALPHA} other than 0");
    let Some(value) = present(&raw.lora_alpha) else {
        return Err(ManifestError::Missing { field: "lora_alpha", expected: expected() });
    };
    match value.as_f64() {
        Some(alpha) if alpha != 0.0 && alpha.abs() <= MAX_ALPHA => Ok(alpha),
        _ => Err(wrong("lora_alpha", expected(), value)),
    }
}

/// A prompt-only method must not declare a rank: its update would be dropped without a word.
fn no_update(raw: &Raw) -> Result<UpdateShape, ManifestError> {
    match count("r", &raw.r, 0, MAX_RANK)? {
        Some(rank) if rank > 0 => Err(ManifestError::Field {
            field: "r",
            expected: "0 or nothing, as only peft_type PROMPT_TUNING_LORA and PROMPT_TUNING_LORAX have low-rank tensors".into(),
            found: rank.to_string(),
        }),
        _ => Ok(UpdateShape::None),
    }
}

/// PEFT's defaults are one task and one rank. It takes the task with each call; for a folder that holds
/// several it is picked here or by the loader. `prompt_tuning_init_task` is not it: that one is of another file.
fn multitask(raw: &Raw) -> Result<Multitask, ManifestError> {
    let tasks = count("num_tasks", &raw.num_tasks, 1, MAX_TASKS)?.unwrap_or(1);
    let ranks = count("num_ranks", &raw.num_ranks, 1, MAX_TASKS)?.unwrap_or(1);
    let task_id = match count(TASK_KEY, &raw.dept_task_id, 0, tasks - 1)? {
        None if tasks == 1 => Some(0),
        chosen => chosen,
    };
    Ok(Multitask { tasks, ranks, task_id })
}

fn present(value: &Option<Value>) -> Option<&Value> {
    value.as_ref().filter(|v| !v.is_null())
}

fn text<'a>(field: &'static str, value: &'a Option<Value>) -> Result<Option<&'a str>, ManifestError> {
    match present(value) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(field, "a string".into(), other)),
    }
}

fn need_text<'a>(
    field: &'static str,
    value: &'a Option<Value>,
    expected: &str,
) -> Result<&'a str, ManifestError> {
    text(field, value)?.ok_or_else(|| ManifestError::Missing { field, expected: expected.into() })
}

fn count(
    field: &'static str,
    value: &Option<Value>,
    least: usize,
    most: usize,
) -> Result<Option<usize>, ManifestError> {
    let Some(value) = present(value) else { return Ok(None) };
    match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
        _ => Err(wrong(field, range(least, most), value)),
    }
}

fn need_count(
    field: &'static str,
    value: &Option<Value>,
    least: usize,
    most: usize,
) -> Result<usize, ManifestError> {
    count(field, value, least, most)?
        .ok_or_else(|| ManifestError::Missing { field, expected: range(least, most) })
}

fn range(least: usize, most: usize) -> String {
    if least == most { format!("{least}") } else { format!("a whole number from {least} to {most}") }
}

fn wrong(field: &'static str, expected: String, found: &Value) -> ManifestError {
    ManifestError::Field { field, expected, found: clip(&found.to_string()) }
}

/// A found value, short enough for a message.
fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
