use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use utoipa::ToSchema;

use super::LogitBiasField;
use super::grammar::{ResponseFormat, grammar};
use crate::{
    api::{ApiError, DEFAULT_MAX_TOKENS, bounds},
    domain::{GenerateRequest, OverLength, Prompt, RawSampling, SamplingParams, TenantId},
};

/// `prompt`: a text, a list of texts (a batch), token ids, or a list of lists of them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PromptField {
    /// One text.
    Text(String),
    /// A batch of texts; `results` comes back in their order.
    Texts(Vec<String>),
    /// Token ids, used as they are.
    Ids(Vec<u32>),
    /// A batch of token ids.
    IdLists(Vec<Vec<u32>>),
}

impl PromptField {
    /// Whether it is a list of prompts.
    pub fn is_batch(&self) -> bool {
        matches!(self, Self::Texts(_) | Self::IdLists(_))
    }
}

/// What to do with a prompt that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// Refuse it with both lengths.
    Error,
    /// Drop tokens from the start.
    Left,
    /// Drop tokens from the end.
    Right,
}

/// The body of `POST /v1/generate`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"adapter": "sst2", "inputs": {"sentence": "a gripping story"}, "logprobs": 1}))]
pub struct GenerateBody {
    /// The adapter's name, or `name@version`; absent or null is the bare backbone.
    #[schema(example = "sst2", pattern = "^[a-z0-9][a-z0-9._-]{0,63}(@(sha256:)?[0-9a-f]{12,64})?$")]
    pub adapter: Option<String>,
    /// A text, a list of texts, token ids or a list of lists of them. Either this or `inputs`.
    pub prompt: Option<PromptField>,
    /// Named fields for the template of the adapter's card.
    #[serde(default, deserialize_with = "inputs")]
    pub inputs: Option<BTreeMap<String, String>>,
    /// Most tokens to generate, at least 1. The card's value, else 20.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// No end token before this many tokens.
    #[schema(default = 0)]
    pub min_tokens: Option<u32>,
    /// 0 takes the most probable token; larger values flatten the distribution.
    #[schema(minimum = 0, maximum = 100, default = 0.0)]
    pub temperature: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all.
    #[schema(default = 0)]
    pub top_k: Option<u32>,
    /// Keep the smallest set of tokens whose probability reaches this.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub top_p: Option<f64>,
    /// Keep tokens at least this fraction as probable as the most probable one.
    #[schema(minimum = 0, maximum = 1, default = 0.0)]
    pub min_p: Option<f64>,
    /// Fixes the random choices; choice i draws with seed + i. Random when absent.
    pub seed: Option<u64>,
    /// Makes tokens seen in prompt or output less likely; 1 is none.
    #[schema(exclusive_minimum = 0, maximum = 10, default = 1.0)]
    pub repetition_penalty: Option<f64>,
    /// Subtracted once from the logits of generated tokens.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub presence_penalty: Option<f64>,
    /// Subtracted from the logits of generated tokens for each occurrence.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub frequency_penalty: Option<f64>,
    /// Added to the logits of tokens, by their ids: -100 all but forbids one, 100 all but forces it.
    #[schema(value_type = Option<BTreeMap<String, f64>>, example = json!({"209": -100}))]
    pub logit_bias: Option<LogitBiasField>,
    /// Generation ends in front of any of these.
    #[schema(max_items = 16)]
    pub stop: Option<Vec<String>>,
    /// Any text, a JSON object, or JSON that a schema describes. One of this, `regex` and `choice`.
    pub response_format: Option<ResponseFormat>,
    /// The text is one that this regular expression matches as a whole.
    #[schema(example = "[0-9]{4}-[0-9]{2}-[0-9]{2}", max_length = 8192)]
    pub regex: Option<String>,
    /// The text is one of these.
    #[schema(min_items = 1, max_items = 10_000)]
    pub choice: Option<Vec<String>>,
    /// How many alternatives to report with their log-probabilities; 0 reports none.
    #[schema(maximum = 20, default = 0)]
    pub logprobs: Option<u8>,
    /// Choices for each prompt.
    #[schema(minimum = 1, maximum = 64, default = 1)]
    pub n: Option<u32>,
    /// What to do with a prompt that is too long. The card's policy, else `error`.
    pub truncate: Option<Truncate>,
    /// Send tokens as they come, as server-sent events.
    #[schema(default = false)]
    pub stream: Option<bool>,
    /// Larger runs earlier; a key has a greatest one that it may use.
    #[schema(default = 0)]
    pub priority: Option<i32>,
    /// Give up after this many milliseconds; 0 waits.
    #[schema(default = 0)]
    pub timeout_ms: Option<u64>,
    /// Who the request is for, in the client's words. Taken, neither stored nor logged.
    pub user: Option<String>,
}

impl GenerateBody {
    /// Whether the response is to be streamed.
    pub fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether `prompt` is a list of prompts, so that the response has `results`.
    pub fn is_batch(&self) -> bool {
        self.prompt.as_ref().is_some_and(PromptField::is_batch)
    }

    fn sampling(&self) -> Result<SamplingParams, ApiError> {
        let default = RawSampling::default();
        let raw = RawSampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: self.logit_bias.clone().unwrap_or_default().0,
            seed: self.seed,
            logprobs: self.logprobs.unwrap_or(default.logprobs),
        };
        Ok(SamplingParams::new(raw)?)
    }
}

impl TryFrom<GenerateBody> for GenerateRequest {
    type Error = ApiError;

    fn try_from(body: GenerateBody) -> Result<Self, ApiError> {
        let sampling = body.sampling()?;
        let n = bounds::choices(body.n)?;
        let max_tokens = bounds::max_tokens(body.max_tokens)?;
        Ok(Self {
            tenant: TenantId::default_tenant(),
            adapter: body.adapter.as_deref().map(str::parse).transpose()?,
            prompts: prompts(body.prompt, body.inputs)?,
            max_tokens,
            usual_tokens: Some(DEFAULT_MAX_TOKENS),
            scores_prompts: false,
            min_tokens: body.min_tokens.unwrap_or(0),
            sampling,
            stop: bounds::stop(body.stop.unwrap_or_default())?,
            grammar: grammar(body.response_format, body.regex.as_deref(), body.choice)?,
            n,
            truncate: body.truncate.map(OverLength::from),
            priority: body.priority.unwrap_or(0),
            timeout: timeout(body.timeout_ms),
        })
    }
}

/// How long to wait; 0 is for ever.
pub(in crate::api::http) fn timeout(timeout_ms: Option<u64>) -> Option<Duration> {
    timeout_ms.filter(|&ms| ms > 0).map(Duration::from_millis)
}

impl From<Truncate> for OverLength {
    fn from(truncate: Truncate) -> Self {
        match truncate {
            Truncate::Error => Self::Error,
            Truncate::Left => Self::Left,
            Truncate::Right => Self::Right,
        }
    }
}

/// The prompts of a request: `prompt` or `inputs`, not both, nothing empty.
pub(in crate::api::http) fn prompts(
    prompt: Option<PromptField>,
    inputs: Option<BTreeMap<String, String>>,
) -> Result<Vec<Prompt>, ApiError> {
    match (prompt, inputs) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("inputs", "prompt and inputs exclude each other: send one"))
        }
        (None, None) => Err(ApiError::invalid("prompt", "prompt is missing: send a prompt, or inputs")),
        (None, Some(inputs)) => Ok(vec![bounds::inputs(inputs)?]),
        (Some(PromptField::Text(text)), None) => Ok(vec![bounds::text(text, "prompt")?]),
        (Some(PromptField::Ids(ids)), None) => Ok(vec![Prompt::Ids(ids)]),
        (Some(PromptField::IdLists(lists)), None) => Ok(lists.into_iter().map(Prompt::Ids).collect()),
        (Some(PromptField::Texts(texts)), None) if texts.is_empty() => Err(bounds::empty("prompt")),
        (Some(PromptField::Texts(texts)), None) => {
            let checked = |(at, text)| bounds::text(text, &format!("prompt[{at}]"));
            texts.into_iter().enumerate().map(checked).collect()
        }
    }
}

/// Written out so that a wrong type is named, which an untagged enum cannot do.
impl<'de> Deserialize<'de> for PromptField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = PromptField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids, or a list of lists of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PromptField, E> {
        Ok(PromptField::Text(text.into()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<PromptField, E> {
        Ok(PromptField::Text(text))
    }

    /// The first item says what the list is of.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PromptField, A::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a string or a token id in the list")]
        enum Item {
            Text(String),
            Id(u32),
            Ids(Vec<u32>),
        }
        match list.next_element()? {
            None => Ok(PromptField::Texts(Vec::new())),
            Some(Item::Text(first)) => rest(first, list).map(PromptField::Texts),
            Some(Item::Id(first)) => rest(first, list).map(PromptField::Ids),
            Some(Item::Ids(first)) => rest(first, list).map(PromptField::IdLists),
        }
    }
}

/// Named fields, none twice: serde's map would keep the last one without a word.
pub(super) fn inputs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Fields;

    impl<'de> Visitor<'de> for Fields {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if fields.contains_key(&name) {
                    return Err(de::Error::custom(format_args!("duplicate field `{name}`")));
                }
                let text = map.next_value()?;
                fields.insert(name, text);
            }
            Ok(fields)
        }
    }

    /// `null` is as good as nothing.
    struct Optional;

    impl<'de> Visitor<'de> for Optional {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Fields.expecting(f)
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(Fields).map(Some)
        }
    }

    deserializer.deserialize_option(Optional)
}

fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut list: A) -> Result<Vec<T>, A::Error> {
    let mut items = vec![first];
    while let Some(item) = list.next_element()? {
        items.push(item);
    }
    Ok(items)
}
