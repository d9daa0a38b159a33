//! Tokens with their log-probabilities, in the forms of the two routes.

use std::{collections::btree_map::Entry, fmt::Write};

use super::forms::{ChatLogprobs, ChatToken, CompletionLogprobs, RankedToken};
use crate::{
    domain::{GeneratedToken, GivenToken, ScoredToken},
    tokenizer::{Detokenizer, Tokenizer},
};

/// JSON has no infinity: what stands for the logarithm of nothing.
const NEVER: f32 = -9999.0;

impl CompletionLogprobs {
    /// Adds a prompt that has been scored, its first token included, which nothing comes before.
    pub fn push_prompt(
        &mut self,
        tokenizer: &Tokenizer,
        (prompt, scored): (&[u32], &[GivenToken]),
        wanted: u8,
        offset: &mut usize,
    ) {
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let first = prompt.first().map(|&id| (id, None, &[][..]));
        let rest = scored.iter().map(|token| (token.id, Some(token.logprob), &token.top[..]));
        for (id, logprob, top) in first.into_iter().chain(rest) {
            self.push(tokenizer, (id, logprob, top), wanted, *offset);
            *offset += detokenizer.push(id).map_or(0, |text| text.chars().count());
        }
    }

    /// Adds a generated token.
    pub fn push_token(
        &mut self,
        tokenizer: &Tokenizer,
        token: &GeneratedToken,
        wanted: u8,
        offset: &mut usize,
    ) {
        self.push(tokenizer, (token.id, token.logprob, &token.top), wanted, *offset);
        *offset += token.text.chars().count();
    }

    fn push(
        &mut self,
        tokenizer: &Tokenizer,
        (id, logprob, top): (u32, Option<f32>, &[ScoredToken]),
        wanted: u8,
        offset: usize,
    ) {
        let name = name(tokenizer, id);
        let top = logprob.map(|logprob| {
            let listed = top
                .iter()
                .take(wanted.into())
                .map(|scored| (self::name(tokenizer, scored.id), scored.logprob));
            let mut named = std::collections::BTreeMap::new();
            // Of tokens that read alike the likeliest keeps the name.
            for (name, logprob) in listed.chain([(name.clone(), logprob)]) {
                if let Entry::Vacant(free) = named.entry(name) {
                    free.insert(finite(logprob));
                }
            }
            named
        });
        self.tokens.push(name);
        self.token_logprobs.push(logprob.map(finite));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }
}

impl ChatLogprobs {
    /// Of `tokens`, with at most `wanted` alternatives each.
    pub fn of<'a>(
        tokenizer: &Tokenizer,
        tokens: impl IntoIterator<Item = &'a GeneratedToken>,
        wanted: u8,
    ) -> Self {
        let ranked = |id: u32, logprob: f32| {
            let bytes = tokenizer.token_bytes(id);
            let token = String::from_utf8_lossy(&bytes).into_owned();
            RankedToken { token, logprob: finite(logprob), bytes }
        };
        let token = |token: &GeneratedToken| ChatToken {
            token: ranked(token.id, token.logprob.unwrap_or(NEVER)),
            top_logprobs: token
                .top
                .iter()
                .take(wanted.into())
                .map(|scored| ranked(scored.id, scored.logprob))
                .collect(),
        };
        Self { content: tokens.into_iter().map(token).collect(), refusal: None }
    }
}

/// A token as completions write it.
fn name(tokenizer: &Tokenizer, id: u32) -> String {
    String::from_utf8(tokenizer.token_bytes(id)).unwrap_or_else(|broken| {
        let mut name = "bytes:".to_owned();
        for byte in broken.as_bytes() {
            write!(name, "\\x{byte:02x}").expect("a string takes all");
        }
        name
    })
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}
