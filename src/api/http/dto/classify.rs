use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PromptField, TimingsObject, Truncate, UsageObject, request::prompts};
use crate::{
    adapter::AdapterLease,
    api::{ApiError, Classified, LabelScore},
    domain::{ClassifyRequest, Normalize, OverLength, Prompt, TenantId},
};

/// How labels of several tokens are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NormalizeField {
    /// The probability of the whole label.
    #[default]
    None,
    /// The log-likelihood divided by the number of tokens, the end token counted.
    Length,
}

/// The body of `POST /v1/classify`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"adapter": "sst2", "inputs": {"sentence": "a gripping story"}}))]
pub struct ClassifyBody {
    /// The adapter's name, or `name@version`; absent or null is the bare backbone.
    #[schema(example = "sst2", pattern = "^[a-z0-9][a-z0-9._-]{0,63}(@(sha256:)?[0-9a-f]{12,64})?$")]
    pub adapter: Option<String>,
    /// A text, a list of texts, or token ids. Either this, `prompts` or `inputs`.
    pub prompt: Option<PromptField>,
    /// A list of texts; `results` comes back in their order.
    pub prompts: Option<Vec<String>>,
    /// Named fields for the template of the adapter's card.
    pub inputs: Option<BTreeMap<String, String>>,
    /// The texts to choose among; those of the adapter's card when absent. A decoder-only model reads a label as the
    /// prompt's continuation, so it may have to begin with a space.
    #[schema(min_items = 2, max_items = 256)]
    pub labels: Option<Vec<String>>,
    /// How labels of several tokens are weighed.
    #[serde(default)]
    pub normalize: NormalizeField,
    /// Take off what each label scores behind a prompt without content, "N/A" (contextual calibration).
    #[serde(default)]
    pub calibrate: bool,
    /// What to do with a prompt that is too long. The card's policy, else `error`.
    pub truncate: Option<Truncate>,
    /// Larger runs earlier.
    #[schema(default = 0)]
    pub priority: Option<i32>,
    /// Give up after this many milliseconds; 0 waits.
    #[schema(default = 0)]
    pub timeout_ms: Option<u64>,
    /// Who the request is for, in the client's words. Taken, neither stored nor logged.
    pub user: Option<String>,
}

impl ClassifyBody {
    /// Whether the response has `results`.
    pub fn is_batch(&self) -> bool {
        self.prompts.is_some() || matches!(self.prompt, Some(PromptField::Texts(_)))
    }
}

impl TryFrom<ClassifyBody> for ClassifyRequest {
    type Error = ApiError;

    fn try_from(body: ClassifyBody) -> Result<Self, ApiError> {
        Ok(Self {
            tenant: TenantId::default_tenant(),
            adapter: body.adapter.as_deref().map(str::parse).transpose()?,
            prompts: all_prompts(body.prompt, body.prompts, body.inputs)?,
            labels: body.labels,
            normalize: match body.normalize {
                NormalizeField::None => Normalize::None,
                NormalizeField::Length => Normalize::Length,
            },
            calibrate: body.calibrate,
            truncate: body.truncate.map(OverLength::from),
            priority: body.priority.unwrap_or(0),
            timeout: body.timeout_ms.filter(|&ms| ms > 0).map(Duration::from_millis),
        })
    }
}

fn all_prompts(
    prompt: Option<PromptField>,
    texts: Option<Vec<String>>,
    inputs: Option<BTreeMap<String, String>>,
) -> Result<Vec<Prompt>, ApiError> {
    match (prompt, texts) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("prompts", "prompt and prompts exclude each other: send one"))
        }
        (prompt, None) => prompts(prompt, inputs),
        (None, Some(texts)) => prompts(Some(PromptField::Texts(texts)), inputs),
    }
}

/// The answer of `POST /v1/classify`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassifyResponse {
    /// The request's id.
    #[schema(example = "019347e2-8c1a-7d3e-9f00-3a5b7c9d1e2f")]
    pub id: String,
    /// The model that ran it.
    #[schema(example = "flan-t5-small-en")]
    pub model: String,
    /// The adapter; null is the bare backbone.
    #[schema(example = "sst2")]
    pub adapter: Option<String>,
    /// The adapter's generation that it ran with.
    pub adapter_version: Option<String>,
    /// What came out.
    #[serde(flatten)]
    pub outcome: ClassifyOutcome,
}

/// One result, or a batch of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ClassifyOutcome {
    /// The result of one prompt.
    One(ClassifiedObject),
    /// Where a list of prompts was sent.
    Batch {
        /// One for each prompt, in order.
        results: Vec<ClassifiedObject>,
        /// Token counts of all of them together.
        usage: UsageObject,
    },
}

/// The labels of one prompt, scored.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassifiedObject {
    /// The likeliest label, by its name on the adapter's card where it has one.
    #[schema(example = "positive")]
    pub label: String,
    /// Every label's score, in the order of the labels.
    pub scores: Vec<LabelObject>,
    /// Token counts; the prompt is counted once.
    pub usage: UsageObject,
    /// Where the time went; of the slowest label.
    pub timings: TimingsObject,
}

/// One label's score.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelObject {
    /// Its name: the card's, else the text.
    #[schema(example = "positive")]
    pub label: String,
    /// What the model would say.
    #[schema(example = "positive")]
    pub text: String,
    /// Log-likelihood of the text and the end token, normalised and calibrated as was asked.
    #[schema(example = -0.31)]
    pub logprob: f64,
    /// Its share among the labels.
    #[schema(example = 0.93)]
    pub probability: f64,
}

impl ClassifyResponse {
    /// The answer to a request; `batch` says whether a list of prompts was sent.
    pub fn new(
        id: String,
        model: String,
        adapter: Option<&AdapterLease>,
        results: Vec<Classified>,
        batch: bool,
    ) -> Self {
        let mut results: Vec<ClassifiedObject> = results.into_iter().map(ClassifiedObject::from).collect();
        let outcome = match results.pop() {
            Some(only) if !batch => ClassifyOutcome::One(only),
            last => {
                results.extend(last);
                let usage = results.iter().fold(UsageObject::default(), |sum, result| sum + result.usage);
                ClassifyOutcome::Batch { results, usage }
            }
        };
        Self {
            id,
            model,
            adapter: adapter.map(|adapter| adapter.name().to_string()),
            adapter_version: adapter.map(|adapter| adapter.version().to_string()),
            outcome,
        }
    }
}

impl From<Classified> for ClassifiedObject {
    fn from(classified: Classified) -> Self {
        let best = LabelObject::from(classified.best().clone()).label;
        Self {
            label: best,
            scores: classified.scores.into_iter().map(LabelObject::from).collect(),
            usage: classified.usage.into(),
            timings: classified.timings.into(),
        }
    }
}

impl From<LabelScore> for LabelObject {
    fn from(score: LabelScore) -> Self {
        let LabelScore { text, label, logprob, probability } = score;
        Self { label: label.unwrap_or_else(|| text.clone()), text, logprob, probability }
    }
}
