use super::response::{
    ChoiceObject, GenerateResponse, Outcome, Output, ResultObject, StreamEvent, StreamToken, TokenObject,
    TopToken, UsageObject,
};
use crate::{
    adapter::AdapterLease,
    api::{Choice, Piece},
    domain::{GeneratedToken, Timings},
    tokenizer::Tokenizer,
};

/// What the JSON of a response is made with.
pub struct Writer {
    /// The request's id.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// The adapter generation.
    pub adapter: Option<AdapterLease>,
    /// Whether the prompt was a list of prompts.
    pub batch: bool,
    /// Whether tokens are shown.
    pub tokens: bool,
    /// Gives alternatives their text.
    pub tokenizer: Tokenizer,
}

impl Writer {
    /// The whole response.
    pub fn response(&self, results: Vec<Vec<Choice>>) -> GenerateResponse {
        let mut results: Vec<ResultObject> =
            results.into_iter().map(|choices| self.result(choices)).collect();
        let outcome = match results.pop() {
            Some(only) if !self.batch => Outcome::One(only),
            last => {
                results.extend(last);
                let usage = results.iter().fold(UsageObject::default(), |sum, result| sum + result.usage);
                Outcome::Batch { results, usage }
            }
        };
        GenerateResponse {
            id: self.id.clone(),
            model: self.model.clone(),
            adapter: self.adapter.as_ref().map(|adapter| adapter.name().to_string()),
            adapter_version: self.adapter.as_ref().map(|adapter| adapter.version().to_string()),
            outcome,
        }
    }

    /// The event of one token.
    pub fn event(&self, piece: Piece) -> StreamEvent {
        let Piece { place, position, token, text } = piece;
        let (id, logprob, top) = match token {
            Some(token) => (Some(token.id), token.logprob, self.top(&token)),
            None => (None, None, Vec::new()),
        };
        StreamEvent {
            result: self.batch.then_some(place.result),
            index: place.choice,
            position,
            token: StreamToken { id, text, logprob, top },
        }
    }

    fn result(&self, choices: Vec<Choice>) -> ResultObject {
        let usage = choices.iter().map(|choice| UsageObject::from(choice.usage));
        let usage = usage.reduce(|sum, one| UsageObject {
            completion_tokens: sum.completion_tokens + one.completion_tokens,
            ..sum
        });
        let slowest = choices.iter().map(|choice| choice.timings).max_by_key(Timings::total);
        let several = choices.len() > 1;
        let object = |(index, choice)| self.choice(several.then_some(index), choice);
        let mut choices: Vec<ChoiceObject> = choices.into_iter().enumerate().map(object).collect();
        let output = match choices.pop() {
            Some(only) if !several => Output::Single(only),
            last => {
                choices.extend(last);
                Output::Several { choices }
            }
        };
        ResultObject { output, usage: usage.unwrap_or_default(), timings: slowest.unwrap_or_default().into() }
    }

    fn choice(&self, index: Option<usize>, choice: Choice) -> ChoiceObject {
        let label = self.adapter.as_ref().and_then(|adapter| adapter.card().label(&choice.text));
        let token = |token: GeneratedToken| TokenObject {
            id: token.id,
            logprob: token.logprob,
            top: self.top(&token),
            text: token.text,
        };
        ChoiceObject {
            index,
            label: label.map(str::to_owned),
            text: choice.text,
            finish_reason: choice.reason.as_str(),
            tokens: self.tokens.then(|| choice.tokens.into_iter().map(token).collect()),
        }
    }

    fn top(&self, token: &GeneratedToken) -> Vec<TopToken> {
        let named = token.top.iter().map(|scored| TopToken {
            id: scored.id,
            text: self.tokenizer.text_of(scored.id),
            logprob: scored.logprob,
        });
        named.collect()
    }
}
