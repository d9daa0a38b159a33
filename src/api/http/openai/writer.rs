//! From finished sequences to what comes back.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Form,
    forms::{
        AnswerMessage, ChatChoice, ChatCompletion, ChatLogprobs, Completion, CompletionChoice,
        CompletionLogprobs, Usage,
    },
};
use crate::{
    adapter::AdapterLease,
    api::{Choice, Place},
    domain::{FinishReason, GivenToken, ModelProfile},
    tokenizer::Tokenizer,
};

/// Digits of a digest in a fingerprint.
const FINGERPRINT: usize = 12;

/// What every response and every chunk of it says.
pub(super) struct Head {
    /// The request's id, without what its kind puts in front.
    pub request_id: String,
    pub created: u64,
    /// The model as the request names it.
    pub model: String,
    pub fingerprint: String,
}

/// What the JSON of a response is made with.
pub(super) struct Writer {
    pub head: Head,
    pub form: Form,
    /// Choices for each prompt.
    pub n: usize,
    pub tokenizer: Tokenizer,
    /// The tokens of the prompts, where they are scored.
    pub prompts: Vec<Vec<u32>>,
    /// What is put in front of the texts, by prompt; empty unless it is asked for.
    pub echoes: Vec<String>,
}

impl Head {
    pub fn new(
        request_id: String,
        model: String,
        (profile, adapter): (&ModelProfile, Option<&AdapterLease>),
    ) -> Self {
        let digits = |text: &str| text.chars().take(FINGERPRINT).collect::<String>();
        let version = adapter.map(|adapter| format!("_{}", digits(&adapter.version().hex())));
        let fingerprint = format!("fp_{}{}", digits(&profile.fingerprint), version.unwrap_or_default());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { request_id, created, model, fingerprint }
    }

    /// The id of a response of this kind.
    pub fn id(&self, kind: &str) -> String {
        format!("{kind}-{}", self.request_id)
    }
}

impl Writer {
    /// The number of a choice among those of all prompts.
    pub fn index(&self, place: Place) -> usize {
        place.result * self.n + place.choice
    }

    /// The answer of `/v1/completions`.
    pub fn completion(&self, results: Vec<Vec<Choice>>) -> Completion {
        let usage = usage(&results);
        let prompts = results.into_iter().enumerate();
        let choices =
            prompts.flat_map(|(prompt, choices)| choices.into_iter().map(move |choice| (prompt, choice)));
        let choices = choices
            .enumerate()
            .map(|(index, (prompt, choice))| self.completion_choice(index, prompt, choice));
        let choices = choices.collect();
        Completion { usage: Some(Some(usage)), ..self.completion_of(choices) }
    }

    /// A completion of `choices` that says nothing of usage.
    pub fn completion_of(&self, choices: Vec<CompletionChoice>) -> Completion {
        let Head { created, model, fingerprint, .. } = &self.head;
        Completion {
            id: self.head.id("cmpl"),
            object: "text_completion",
            created: *created,
            model: model.clone(),
            system_fingerprint: fingerprint.clone(),
            choices,
            usage: None,
        }
    }

    /// The answer of `/v1/chat/completions`.
    pub fn chat(&self, results: Vec<Vec<Choice>>) -> ChatCompletion {
        let usage = usage(&results);
        let choices = results.into_iter().flatten().enumerate();
        let choice = |(index, choice): (usize, Choice)| ChatChoice {
            index,
            logprobs: self.form.logprobs().map(|top| ChatLogprobs::of(&self.tokenizer, &choice.tokens, top)),
            message: AnswerMessage { role: "assistant", content: choice.text, refusal: None },
            finish_reason: finish_reason(choice.reason),
        };
        let Head { created, model, fingerprint, .. } = &self.head;
        ChatCompletion {
            id: self.head.id("chatcmpl"),
            object: "chat.completion",
            created: *created,
            model: model.clone(),
            system_fingerprint: fingerprint.clone(),
            choices: choices.map(choice).collect(),
            usage,
        }
    }

    fn completion_choice(&self, index: usize, prompt: usize, choice: Choice) -> CompletionChoice {
        let (text, logprobs, mut offset) = self.echo(prompt, &choice.given);
        let logprobs = self.form.logprobs().map(|top| {
            let mut logprobs = logprobs.unwrap_or_default();
            for token in choice.tokens.iter().chain(&choice.end) {
                logprobs.push_token(&self.tokenizer, token, top, &mut offset);
            }
            logprobs
        });
        let finish_reason = Some(finish_reason(choice.reason));
        CompletionChoice { index, text: text + &choice.text, logprobs, finish_reason }
    }

    /// What stands in front of a text: the prompt, its log-probabilities where they are asked for, and its length in
    /// characters.
    pub fn echo(&self, prompt: usize, given: &[GivenToken]) -> (String, Option<CompletionLogprobs>, usize) {
        let Some(text) = self.echoes.get(prompt) else { return Default::default() };
        let mut offset = 0;
        let logprobs = self.form.logprobs().zip(self.prompts.get(prompt)).map(|(top, tokens)| {
            let mut logprobs = CompletionLogprobs::default();
            logprobs.push_prompt(&self.tokenizer, (tokens, given), top, &mut offset);
            logprobs
        });
        (text.clone(), logprobs, text.chars().count())
    }
}

/// Token counts of all sequences; a prompt counts once, however many choices it has.
pub(super) fn usage(results: &[Vec<Choice>]) -> Usage {
    let mut sum = Usage::default();
    for choices in results {
        if let Some(first) = choices.first() {
            sum.prompt_tokens += first.usage.prompt_tokens;
            sum.prompt_tokens_details.cached_tokens += first.usage.cached_tokens;
            sum.prompt_tokens_details.virtual_tokens += first.usage.virtual_tokens;
        }
        sum.completion_tokens += choices.iter().map(|choice| choice.usage.completion_tokens).sum::<usize>();
    }
    Usage { total_tokens: sum.prompt_tokens + sum.completion_tokens, ..sum }
}

/// OpenAI knows two regular ends.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::StopSequence | FinishReason::Cancelled => "stop",
    }
}
