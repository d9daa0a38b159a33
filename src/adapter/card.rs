//! `card.toml`: what an adapter is for, how to ask it, and how well it was measured to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::Error as _};

use super::template::{Template, TemplateError};
use crate::domain::OverLength;

/// Longest card in bytes.
pub const MAX_CARD_BYTES: usize = 256 << 10;
/// Most tokens that a card may ask for by default.
pub const MAX_TOKENS: u32 = 1 << 20;

/// Why a card is refused.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Longer than a card.
    #[error("card.toml has {0} bytes, at most {MAX_CARD_BYTES} are read")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("card.toml is not UTF-8 text: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// Not TOML, an unknown key, or a value of another type.
    #[error("card.toml: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value out of range.
    #[error("card.toml: '{key}': expected {expected}, found {found}")]
    Value {
        /// The key.
        key: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

/// The model an adapter was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The fingerprint of its weights; a server with another backbone refuses the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The data set.
    pub dataset: String,
    /// Which part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The metric, such as `accuracy`.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// The bounds within which the value lies with 95 % confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_95: Option<[f64; 2]>,
    /// Examples measured on.
    pub n: u64,
    /// Area under the ROC curve on the same examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
    /// The metric of always answering the most frequent label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub majority: Option<f64>,
    /// The metric of the backbone without adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<f64>,
    /// The area under the ROC curve of the backbone without adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot_auc: Option<f64>,
    /// The command that measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How an adapter was made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// The command that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Steps of the optimiser behind these tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Minutes that those steps took, evaluations aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// The day, as `2026-11-24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

/// An adapter's card. An absent file is an empty card.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// What it does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How named inputs become a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// Output text to the label shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Tokens to generate where the request does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// What to do with too long an input where the request does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_length: Option<OverLength>,
    /// Licence of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The model it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// How it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Trained>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Measurement>,
}

impl Card {
    /// From the bytes of `card.toml`.
    ///
    /// # Errors
    /// Names the unknown key or the value that is out of range.
    pub fn parse(toml: &[u8]) -> Result<Self, CardError> {
        if toml.len() > MAX_CARD_BYTES {
            return Err(CardError::TooLong(toml.len()));
        }
        let card: Self = toml::from_str(std::str::from_utf8(toml)?)?;
        card.check()?;
        Ok(card)
    }

    /// The prompt for named inputs; none when the card has no template.
    ///
    /// # Errors
    /// Names missing and unknown fields.
    pub fn render(&self, inputs: &BTreeMap<String, String>) -> Option<Result<String, TemplateError>> {
        self.template.as_ref().map(|template| template.render(inputs))
    }

    /// The label of an output, surrounding white space aside.
    pub fn label(&self, output: &str) -> Option<&str> {
        self.labels.get(output.trim()).map(String::as_str)
    }

    /// The fingerprint of the model it belongs to.
    pub fn base_fingerprint(&self) -> Option<&str> {
        self.base.as_ref()?.fingerprint.as_deref()
    }

    fn check(&self) -> Result<(), CardError> {
        if let Some(found) = self.max_tokens.filter(|n| !(1..=MAX_TOKENS).contains(n)) {
            let expected = "a number from 1 to 1048576";
            return Err(CardError::Value { key: "max_tokens".into(), expected, found: found.to_string() });
        }
        if self.base_fingerprint().is_some_and(str::is_empty) {
            let expected = "the fingerprint that `dept model inspect` prints";
            return Err(CardError::Value { key: "base.fingerprint".into(), expected, found: "''".into() });
        }
        if let Some(key) = self.labels.keys().find(|key| key.trim() != key.as_str()) {
            let expected = "keys without white space around them";
            return Err(CardError::Value { key: "labels".into(), expected, found: format!("'{key}'") });
        }
        let minutes = self.training.as_ref().and_then(|training| training.minutes);
        if let Some(found) = minutes.filter(|minutes| !minutes.is_finite()) {
            let (key, expected) = ("training.minutes".to_owned(), "a finite number");
            return Err(CardError::Value { key, expected, found: found.to_string() });
        }
        self.results.iter().enumerate().try_for_each(|(at, result)| result.check(at))
    }
}

impl Measurement {
    /// TOML knows nan and inf; JSON, which cards are shown in, does not.
    fn check(&self, at: usize) -> Result<(), CardError> {
        let values = [
            ("value", Some(self.value)),
            ("auc", self.auc),
            ("majority", self.majority),
            ("zero_shot", self.zero_shot),
            ("zero_shot_auc", self.zero_shot_auc),
            ("interval_95", self.interval_95.map(|[low, _]| low)),
            ("interval_95", self.interval_95.map(|[_, high]| high)),
        ];
        match values.into_iter().find(|(_, value)| value.is_some_and(|v| !v.is_finite())) {
            None => Ok(()),
            Some((key, value)) => Err(CardError::Value {
                key: format!("results[{at}].{key}"),
                expected: "a finite number",
                found: value.unwrap_or_default().to_string(),
            }),
        }
    }
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Template::parse(&text).map_err(|error| D::Error::custom(format!("template: {error}")))
    }
}
