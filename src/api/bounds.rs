//! What a request may say on its own, before an adapter or the model is looked at; the same on every wire.

use std::collections::BTreeMap;

use super::ApiError;
use crate::domain::Prompt;

/// Most choices for one prompt.
const MAX_CHOICES: u32 = 64;

/// Most stop strings, and most bytes of one.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;

/// Most tokens whose logits a request may change: each costs every step a little.
pub(super) const MAX_BIASED: usize = 1024;

/// How many choices a prompt gets; one where nothing is said.
pub(super) fn choices(n: Option<u32>) -> Result<u32, ApiError> {
    let n = n.unwrap_or(1);
    if !(1..=MAX_CHOICES).contains(&n) {
        return Err(ApiError::invalid("n", format!("n is {n}: use 1 to {MAX_CHOICES}")));
    }
    Ok(n)
}

/// Most tokens to generate, where something is said.
pub(super) fn max_tokens(asked: Option<u32>) -> Result<Option<u32>, ApiError> {
    match asked {
        Some(0) => Err(ApiError::invalid("max_tokens", "max_tokens is 0: ask for at least 1 token")),
        asked => Ok(asked),
    }
}

/// The texts that generation ends in front of.
pub(super) fn stop(stop: Vec<String>) -> Result<Vec<String>, ApiError> {
    if stop.len() > MAX_STOPS {
        let message = format!("stop has {} strings: use at most {MAX_STOPS}", stop.len());
        return Err(ApiError::invalid("stop", message));
    }
    for (at, text) in stop.iter().enumerate() {
        if text.is_empty() || text.len() > MAX_STOP_BYTES {
            let message = format!("stop[{at}] has {} bytes: use 1 to {MAX_STOP_BYTES}", text.len());
            return Err(ApiError::invalid(format!("stop[{at}]"), message));
        }
    }
    Ok(stop)
}

/// A text as a prompt; `param` is the field that it came in.
pub(super) fn text(text: String, param: &str) -> Result<Prompt, ApiError> {
    if text.is_empty() { Err(empty(param)) } else { Ok(Prompt::Text(text)) }
}

/// Fields of a template as a prompt.
pub(super) fn inputs(fields: BTreeMap<String, String>) -> Result<Prompt, ApiError> {
    if fields.is_empty() { Err(empty("inputs")) } else { Ok(Prompt::Inputs(fields)) }
}

/// A prompt of nothing.
pub(super) fn empty(param: &str) -> ApiError {
    ApiError::invalid(param, format!("{param} is empty: send some text"))
}

/// Whether so many logits may be changed.
pub(super) fn logit_bias(tokens: usize, param: &str) -> Result<(), ApiError> {
    if tokens <= MAX_BIASED {
        return Ok(());
    }
    Err(ApiError::invalid(param, format!("{param} has {tokens} tokens: use at most {MAX_BIASED}")))
}
