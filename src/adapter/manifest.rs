//! `adapter_config.json`, parsed and checked.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most prompt rows m that a config may ask for.
pub const MAX_PROMPT_LENGTH: usize = 16_384;
/// Largest rank r.
pub const MAX_RANK: usize = 16_384;
/// Longest input s in tokens.
pub const MAX_LENGTH: usize = 1 << 20;
/// Largest hidden size d.
pub const MAX_HIDDEN: usize = 1 << 16;
/// Most tasks or task ranks in a multitask prompt.
const MAX_TASKS: usize = 4_096;
/// Largest magnitude of `lora_alpha`.
const MAX_ALPHA: f64 = 1e6;

/// The key that says which method an ambiguous `PROMPT_TUNING_LORA` is.
pub const VARIANT_KEY: &str = "dept_variant";
/// The key that picks the task of a multitask prompt with more than one.
pub const TASK_KEY: &str = "dept_task_id";

/// Why a config is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a JSON object, or a field twice.
    #[error("adapter_config.json is not a JSON object that can be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A needed field is absent or null.
    #[error("adapter_config.json: field '{field}' is missing: expected {expected}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What belongs there.
        expected: String,
    },
    /// A field holds something else.
    #[error("adapter_config.json: field '{field}': expected {expected}, found {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// ADePT, which this version does not serve.
    #[error(
        "this is an ADePT adapter ({evidence}): ADePT is not supported; train or convert it as DePT (peft_type PROMPT_TUNING_LORA)"
    )]
    Adept {
        /// What gave it away.
        evidence: &'static str,
    },
}

/// How an adapter was trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// DePT: prompt rows and a low-rank update of the token embeddings.
    Dept,
    /// Prompt tuning: prompt rows only.
    #[serde(rename = "pt")]
    PromptTuning,
    /// P-tuning: the saved outputs of a prompt encoder, served like prompt tuning.
    PTuning,
    /// Multitask prompt tuning, collapsed to one task's prompt.
    Mpt,
    /// The low-rank update alone, m = 0.
    #[serde(rename = "lowrank")]
    LowRankOnly,
}

impl Method {
    /// The word used in JSON and on screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dept => "dept",
            Self::PromptTuning => "pt",
            Self::PTuning => "ptuning",
            Self::Mpt => "mpt",
            Self::LowRankOnly => "lowrank",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of model an adapter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Task {
    /// Encoder-decoder, such as T5.
    #[serde(rename = "SEQ_2_SEQ_LM")]
    Seq2SeqLm,
    /// Decoder-only.
    #[serde(rename = "CAUSAL_LM")]
    CausalLm,
}

impl Task {
    /// PEFT's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seq2SeqLm => "SEQ_2_SEQ_LM",
            Self::CausalLm => "CAUSAL_LM",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The declared shape of the low-rank pair: A `(s, r)`, B `(r, d)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRankShape {
    /// r, at least 1.
    pub rank: usize,
    /// s, at least 1.
    pub max_length: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// Whether the config says itself that this is DePT and not ADePT without biases.
    pub surely_dept: bool,
}

impl LowRankShape {
    /// The factor on A . B: `lora_alpha / sqrt(r)`.
    pub fn scale(&self) -> f32 {
        (self.alpha / (self.rank as f64).sqrt()) as f32
    }
}

/// The declared shape of a multitask prompt: task columns `(T, m, R)`, task rows `(T, R, d)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multitask {
    /// T, at least 1.
    pub tasks: usize,
    /// R, at least 1.
    pub ranks: usize,
    /// Which of the tasks is served, below T; the only one when T = 1.
    pub task_id: Option<usize>,
}

/// What `adapter_config.json` declares. Fields that do not matter to serving are not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// How it was trained.
    pub method: Method,
    /// The kind of model.
    pub task: Task,
    /// Prompt rows m.
    pub prompt_length: usize,
    /// Hidden size d.
    pub hidden: usize,
    /// The low-rank pair, when r > 0.
    pub low_rank: Option<LowRankShape>,
    /// The tasks of a multitask prompt; present exactly when the method is [`Method::Mpt`].
    pub multitask: Option<Multitask>,
    /// How many times m rows `prompt_embeddings` holds; where unset, seq2seq files hold once or twice m.
    pub submodules: Option<usize>,
    /// The model it was trained on, as its author named it.
    pub base_model: Option<String>,
}

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

impl Manifest {
    /// From the bytes of `adapter_config.json`.
    ///
    /// # Errors
    /// Names the field that is missing, out of range or at odds with another.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let raw: Raw = serde_json::from_slice(json)?;
        let peft_type = need_text("peft_type", &raw.peft_type, "the method, such as \"PROMPT_TUNING_LORA\"")?;
        let task = task(&raw)?;
        let prompt_length = need_count("num_virtual_tokens", &raw.num_virtual_tokens, 0, MAX_PROMPT_LENGTH)?;
        let hidden = hidden(&raw)?;
        let submodules = submodules(&raw, task)?;
        let base_model = text("base_model_name_or_path", &raw.base_model_name_or_path)?.map(str::to_owned);
        let (method, low_rank, multitask) = match peft_type {
            "PROMPT_TUNING_LORA" => {
                let low_rank = low_rank(&raw)?;
                (low_rank_method(prompt_length, low_rank.is_some()), low_rank, None)
            }
            "PROMPT_TUNING" => (Method::PromptTuning, no_low_rank(&raw)?, None),
            "P_TUNING" => (Method::PTuning, no_low_rank(&raw)?, None),
            "MULTITASK_PROMPT_TUNING" => (Method::Mpt, no_low_rank(&raw)?, Some(multitask(&raw)?)),
            "PROMPT_TUNING_LORAX" => {
                return Err(ManifestError::Adept { evidence: "its peft_type is PROMPT_TUNING_LORAX" });
            }
            other => {
                return Err(ManifestError::Field {
                    field: "peft_type",
                    expected: "PROMPT_TUNING_LORA (DePT), PROMPT_TUNING, P_TUNING or MULTITASK_PROMPT_TUNING"
                        .into(),
                    found: clip(other),
                });
            }
        };
        if prompt_length == 0 && method != Method::LowRankOnly {
            return Err(ManifestError::Field {
                field: "num_virtual_tokens",
                expected: "at least 1, as there is no low-rank pair (r > 0) beside the prompt".into(),
                found: "0".into(),
            });
        }
        Ok(Self { method, task, prompt_length, hidden, low_rank, multitask, submodules, base_model })
    }

    /// The same adapter serving another task of its multitask prompt.
    ///
    /// # Errors
    /// When it has no such task.
    pub fn with_task(mut self, task_id: usize) -> Result<Self, ManifestError> {
        let tasks = self.multitask.map_or(0, |multitask| multitask.tasks);
        match &mut self.multitask {
            Some(multitask) if task_id < tasks => multitask.task_id = Some(task_id),
            _ => {
                return Err(ManifestError::Field {
                    field: "num_tasks",
                    expected: format!("more than the chosen task {task_id}"),
                    found: tasks.to_string(),
                });
            }
        }
        Ok(self)
    }

    /// The rank r; 0 without a low-rank pair.
    pub fn rank(&self) -> usize {
        self.low_rank.map_or(0, |shape| shape.rank)
    }

    /// The longest input s in tokens; none without a low-rank pair.
    pub fn max_length(&self) -> Option<usize> {
        self.low_rank.map(|shape| shape.max_length)
    }

    /// `lora_alpha`; none without a low-rank pair.
    pub fn alpha(&self) -> Option<f64> {
        self.low_rank.map(|shape| shape.alpha)
    }
}

fn low_rank_method(prompt_length: usize, has_pair: bool) -> Method {
    match (prompt_length, has_pair) {
        (_, false) => Method::PromptTuning,
        (0, true) => Method::LowRankOnly,
        (_, true) => Method::Dept,
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

/// The pair that `PROMPT_TUNING_LORA` declares; r = 0 declares none and needs no other field.
fn low_rank(raw: &Raw) -> Result<Option<LowRankShape>, ManifestError> {
    let rank = need_count("r", &raw.r, 0, MAX_RANK)?;
    let surely_dept = match text(VARIANT_KEY, &raw.dept_variant)? {
        None => false,
        Some("dept") => true,
        Some("adept") => return Err(ManifestError::Adept { evidence: "its dept_variant says so" }),
        Some(other) => {
            return Err(ManifestError::Field {
                field: VARIANT_KEY,
                expected: "\"dept\" or \"adept\"".into(),
                found: clip(other),
            });
        }
    };
    if rank == 0 {
        return Ok(None);
    }
    let max_length = need_count("max_length", &raw.max_length, 1, MAX_LENGTH)?;
    Ok(Some(LowRankShape { rank, max_length, alpha: alpha(raw)?, surely_dept }))
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
fn no_low_rank(raw: &Raw) -> Result<Option<LowRankShape>, ManifestError> {
    match count("r", &raw.r, 0, MAX_RANK)? {
        Some(rank) if rank > 0 => Err(ManifestError::Field {
            field: "r",
            expected: "0 or nothing, as only peft_type PROMPT_TUNING_LORA has a low-rank pair".into(),
            found: rank.to_string(),
        }),
        _ => Ok(None),
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
