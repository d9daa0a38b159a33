//! The body of `POST /v1/completions`.

use serde_json::Value;

use super::{
    Ask, Form,
    errors::unsupported,
    fields::{Own, StopField, StreamOptions, body, refuse},
    ignored::{Fields, Lenient},
};
use crate::api::{
    ApiError,
    http::dto::{PromptField, request::prompts},
};

/// OpenAI's, where neither the request nor the card says how many.
const USUAL_TOKENS: u32 = 16;

body! {
    /// The body of `POST /v1/completions`.
    #[schema(example = json!({"model": "sst2", "prompt": "sentence: a gripping story", "max_tokens": 4, "temperature": 0}))]
    CompletionBody {
        /// A text, a list of texts, token ids or a list of lists of them.
        #[schema(nullable = false)]
        prompt: Option<PromptField>,
        /// Most tokens to generate; the card's value, else 16. 0 with `echo`, to score the prompt.
        max_tokens: Option<u32>,
        /// Put the prompt in front of the text; with `logprobs` its tokens are scored (decoder-only models).
        #[schema(default = false)]
        echo: Option<bool>,
        /// Report log-probabilities, and as many alternatives at each place.
        #[schema(maximum = 20)]
        logprobs: Option<u8>,
        /// As many as `n`: nothing is generated to be thrown away.
        best_of: Option<u32>,
        /// Can't be honoured: text is continued at its end.
        suffix: Option<Value>,
    }
}

impl Lenient for CompletionBody {
    const FIELDS: Fields =
        Fields { names: Self::NAMES, inside: &[("stream_options", &StreamOptions::FIELDS)] };
}

impl TryFrom<CompletionBody> for Ask {
    type Error = ApiError;

    fn try_from(mut body: CompletionBody) -> Result<Self, ApiError> {
        let mut common = body.common();
        let model = common.model()?;
        refuse("suffix", body.suffix.as_ref(), "ask for a continuation")?;
        let n = common.n.unwrap_or(1);
        if let Some(best_of) = body.best_of.filter(|&best_of| best_of != n) {
            let what = format!("{best_of} choices to return {n}");
            return Err(unsupported("best_of", &what, "set n and choose by logprobs"));
        }
        let echo = body.echo.unwrap_or(false);
        let scores_prompts = echo && (body.logprobs.is_some() || body.max_tokens == Some(0));
        let missing = || ApiError::invalid("prompt", "prompt is missing: send some text");
        let prompt = body.prompt.ok_or_else(missing)?;
        let delivery = common.delivery()?;
        let request = common.request(Own {
            prompts: prompts(Some(prompt), None)?,
            max_tokens: body.max_tokens,
            usual_tokens: Some(USUAL_TOKENS),
            scores_prompts,
            logprobs: body.logprobs,
        })?;
        let form = Form::Text { echo, logprobs: body.logprobs };
        Ok(Self { model, request, delivery, form })
    }
}
