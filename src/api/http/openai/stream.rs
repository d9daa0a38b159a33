//! The chunks of a streamed response.
//!
//! Chat: a chunk with the role for each choice, chunks of text, for each choice one with its `finish_reason`, then with
//! `include_usage` one that has no choices. Completions the same without the roles.

use super::{
    forms::{
        ChatChunk, ChatLogprobs, ChunkChoice, Completion, CompletionChoice, CompletionLogprobs, Delta, Usage,
    },
    writer::{Writer, finish_reason, usage},
};
use crate::{
    api::{
        Choice, Gathering, Piece, Place,
        http::stream::{Frames, Script},
    },
    domain::FinishReason,
};

/// A completion as it comes.
pub(super) struct TextStream {
    pub writer: Writer,
    pub include_usage: bool,
    /// Of every choice the characters that its text has so far; `None` before its first chunk.
    pub offsets: Vec<Option<usize>>,
}

/// A chat completion as it comes.
pub(super) struct ChatStream {
    pub writer: Writer,
    pub include_usage: bool,
}

impl Script for TextStream {
    fn id(&self) -> &str {
        &self.writer.head.request_id
    }

    fn piece(&mut self, piece: Piece, so_far: &Gathering, say: &mut Frames) {
        let (mut text, mut logprobs, mut offset) = self.start(piece.place, so_far);
        let top = self.writer.form.logprobs();
        if let Some((top, token)) = top.zip(piece.token.as_ref()) {
            let logprobs = logprobs.get_or_insert_default();
            logprobs.push_token(&self.writer.tokenizer, token, top, &mut offset);
        } else {
            offset += piece.text.chars().count();
        }
        text.push_str(&piece.text);
        let index = self.writer.index(piece.place);
        self.offsets[index] = Some(offset);
        if !text.is_empty() || logprobs.is_some() {
            say.say(&self.chunk(index, text, logprobs, None));
        }
    }

    fn end(&mut self, place: Place, so_far: &Gathering, say: &mut Frames) {
        let Some(end) = so_far.end(place) else { return };
        let (text, mut logprobs, mut offset) = self.start(place, so_far);
        if let Some((top, token)) = self.writer.form.logprobs().zip(end.end.as_ref()) {
            let logprobs = logprobs.get_or_insert_default();
            logprobs.push_token(&self.writer.tokenizer, token, top, &mut offset);
        }
        say.say(&self.chunk(self.writer.index(place), text, logprobs, Some(end.reason)));
    }

    fn finish(&mut self, results: Vec<Vec<Choice>>, say: &mut Frames) {
        if self.include_usage {
            let usage = Some(Some(usage(&results)));
            say.say(&Completion { usage, ..self.writer.completion_of(Vec::new()) });
        }
    }
}

impl TextStream {
    /// What the next chunk of a choice begins with: the prompt, where it is the first and that is to be echoed. Also where its
    /// text stands.
    fn start(&self, place: Place, so_far: &Gathering) -> (String, Option<CompletionLogprobs>, usize) {
        match self.offsets[self.writer.index(place)] {
            Some(offset) => (String::new(), None, offset),
            None => self.writer.echo(place.result, so_far.given(place)),
        }
    }

    fn chunk(
        &self,
        index: usize,
        text: String,
        logprobs: Option<CompletionLogprobs>,
        reason: Option<FinishReason>,
    ) -> Completion {
        let choice = CompletionChoice { index, text, logprobs, finish_reason: reason.map(finish_reason) };
        let usage = self.include_usage.then_some(None);
        Completion { usage, ..self.writer.completion_of(vec![choice]) }
    }
}

impl Script for ChatStream {
    fn id(&self) -> &str {
        &self.writer.head.request_id
    }

    fn begin(&mut self, say: &mut Frames) {
        for index in 0..self.writer.n {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
            say.say(
                &self.chunk(Some(ChunkChoice { index, delta, logprobs: None, finish_reason: None }), None),
            );
        }
    }

    fn piece(&mut self, piece: Piece, _so_far: &Gathering, say: &mut Frames) {
        let top = self.writer.form.logprobs();
        let logprobs = top.map(|top| ChatLogprobs::of(&self.writer.tokenizer, &piece.token, top));
        if piece.text.is_empty() && logprobs.is_none() {
            return;
        }
        let index = self.writer.index(piece.place);
        let delta = Delta { role: None, content: Some(piece.text) };
        say.say(&self.chunk(Some(ChunkChoice { index, delta, logprobs, finish_reason: None }), None));
    }

    fn end(&mut self, place: Place, so_far: &Gathering, say: &mut Frames) {
        let Some(end) = so_far.end(place) else { return };
        let (index, finish_reason) = (self.writer.index(place), Some(finish_reason(end.reason)));
        let choice = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
        say.say(&self.chunk(Some(choice), None));
    }

    fn finish(&mut self, results: Vec<Vec<Choice>>, say: &mut Frames) {
        if self.include_usage {
            say.say(&self.chunk(None, Some(usage(&results))));
        }
    }
}

impl ChatStream {
    fn chunk(&self, choice: Option<ChunkChoice>, usage: Option<Usage>) -> ChatChunk {
        let head = &self.writer.head;
        ChatChunk {
            id: head.id("chatcmpl"),
            object: "chat.completion.chunk",
            created: head.created,
            model: head.model.clone(),
            system_fingerprint: head.fingerprint.clone(),
            choices: choice.into_iter().collect(),
            usage: self.include_usage.then_some(usage),
        }
    }
}
