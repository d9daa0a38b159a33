//! `adapter_config.json`, parsed and checked.

use std::fmt;

use serde::{Deserialize, Serialize};

mod parse;

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
}

/// How an adapter was trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// ADePT: prompt rows and a shallow network over the token embeddings.
    Adept,
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
            Self::Adept => "adept",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of model an adapter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
}

impl LowRankShape {
    /// The factor on A . B: `lora_alpha / sqrt(r)`.
    pub fn scale(&self) -> f32 {
        (self.alpha / (self.rank as f64).sqrt()) as f32
    }
}

/// What the config says of the update of token embeddings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UpdateShape {
    /// There is none.
    None,
    /// DePT's pair.
    LowRank(LowRankShape),
    /// DePT's pair, or ADePT without biases, which has the same `peft_type`: the shape of A tells.
    LowRankOrAdept(LowRankShape),
    /// ADePT: A `(d, r)`, B `(r, d)` and, with `biases`, a `(r)` and b `(d)`.
    Adept {
        /// r, at least 1.
        rank: usize,
        /// Whether the file holds the biases.
        biases: bool,
    },
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
    /// What updates the token embeddings. Where the file decided what the config left open, it is the decision.
    pub update: UpdateShape,
    /// The tasks of a multitask prompt; present exactly when the method is [`Method::Mpt`].
    pub multitask: Option<Multitask>,
    /// How many times m rows `prompt_embeddings` holds; where unset, seq2seq files hold once or twice m.
    pub submodules: Option<usize>,
    /// The model it was trained on, as its author named it.
    pub base_model: Option<String>,
}

impl Manifest {
    /// From the bytes of `adapter_config.json`.
    ///
    /// # Errors
    /// Names the field that is missing, out of range or at odds with another.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        parse::manifest(json)
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

    /// The same manifest with what the tensors decided: `LowRankOrAdept` is one of the two.
    pub(super) fn decided(mut self, adept: bool) -> Self {
        self.update = match self.update {
            UpdateShape::LowRankOrAdept(shape) if adept => {
                self.method = Method::Adept;
                UpdateShape::Adept { rank: shape.rank, biases: false }
            }
            UpdateShape::LowRankOrAdept(shape) => UpdateShape::LowRank(shape),
            known => known,
        };
        self
    }

    /// The manifest of an adapter that was trained here: what its config leaves open is DePT's.
    pub fn trained(self) -> Self {
        self.decided(false)
    }

    /// `lora_alpha`; none without a low-rank pair.
    pub fn alpha(&self) -> Option<f64> {
        match self.update {
            UpdateShape::LowRank(shape) | UpdateShape::LowRankOrAdept(shape) => Some(shape.alpha),
            UpdateShape::None | UpdateShape::Adept { .. } => None,
        }
    }
}
