//! What comes of a step: scores, tokens, ends and failures, each told to the client it belongs to.

use std::time::Instant;

use super::{
    Engine,
    client::{self, Client},
};
use crate::{
    domain::{FinishReason, GrammarStuck, SequenceError, TokenEvent},
    grammar::{Guide, Progress},
    runner::{Runner, StepError},
    sampling::{SampleError, Sampled},
    scheduler::{Sequence, SequenceId},
};

impl<R: Runner + 'static> Engine<R> {
    /// Gives every sequence its scores and its token, and ends those that are done.
    pub(super) fn hand_out(&mut self) {
        let now = Instant::now();
        self.hand_out_scores(now);
        let mut tokens = std::mem::take(&mut self.output.tokens);
        for (id, sampled) in tokens.drain(..) {
            match sampled {
                Ok(sampled) => self.hand_out_token(id, sampled, now),
                Err(error) => self.fail_sequence(id, &error),
            }
        }
        self.output.tokens = tokens;
    }

    fn hand_out_scores(&mut self, now: Instant) {
        let mut scores = std::mem::take(&mut self.output.scores);
        for (id, score) in scores.drain(..) {
            match score {
                Ok(given) => {
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.see(now);
                        client.deliver(TokenEvent::Given(given));
                    }
                }
                Err(error) => self.fail_sequence(id, &error),
            }
        }
        self.output.scores = scores;
        let plan = std::mem::take(&mut self.plan);
        for planned in plan.decode.iter().filter(|planned| !planned.samples) {
            let sequences = self.parts.scheduler.sequences();
            if sequences.get(planned.sequence).is_some_and(Sequence::is_scored) {
                self.finish(planned.sequence, FinishReason::Length);
            }
        }
        self.plan = plan;
    }

    fn hand_out_token(&mut self, id: SequenceId, sampled: Sampled, now: Instant) {
        let committed = self.parts.scheduler.commit(id, sampled.token);
        // The end token is no part of the text.
        let followed =
            if committed == Some(FinishReason::Stop) { None } else { self.follow(id, sampled.token) };
        let Some(client) = self.clients.get_mut(&id) else { return };
        let reason = match committed {
            Some(FinishReason::Stop) => {
                client.see(now);
                client.note_end(sampled);
                Some(FinishReason::Stop)
            }
            other => {
                let (first, since) = client.see(now);
                self.parts.observer.token(first, since);
                let stopped = client.send(sampled);
                if stopped { Some(FinishReason::StopSequence) } else { other }
            }
        };
        match (reason, followed) {
            // What its grammar calls whole ends by itself, though it be at its limit.
            (None | Some(FinishReason::Length), Some(Ok(Progress::Whole))) => {
                self.finish(id, FinishReason::Stop)
            }
            (None, Some(Err(why))) => self.end(id, |client| client.fail(why.into())),
            (Some(reason), _) => self.finish(id, reason),
            (None, _) => {}
        }
    }

    /// Moves a sequence's grammar by its token; `None` where it has none.
    fn follow(&mut self, id: SequenceId, token: u32) -> Option<Result<Progress, GrammarStuck>> {
        let sequence = self.parts.scheduler.sequences().get_mut(id)?;
        Some(sequence.request.guide.as_mut()?.advance(token))
    }

    fn finish(&mut self, id: SequenceId, reason: FinishReason) {
        let Some(sequence) = self.parts.scheduler.sequences().get(id) else { return };
        let usage = client::usage(sequence);
        let Some(mut client) = self.clients.remove(&id) else { return };
        self.forget(id, &client);
        let completion = client.complete(reason, usage);
        self.parts.observer.finished(&completion);
        client.deliver(TokenEvent::Finished(completion));
    }

    fn fail_sequence(&mut self, id: SequenceId, error: &SampleError) {
        let guide = self.parts.scheduler.sequences().get(id).and_then(|held| held.request.guide.as_ref());
        if let (SampleError::NothingAllowed, Some(why)) = (error, guide.and_then(Guide::stuck)) {
            self.end(id, |client| client.fail(why.into()));
            return;
        }
        tracing::error!(sequence = id.0, %error, "a sequence failed");
        self.end(id, |client| client.fail(SequenceError::Internal));
    }

    /// Fails what the failed half of the step worked on.
    pub(super) fn fail_step(&mut self, error: &StepError) {
        let failed: Vec<SequenceId> = match error {
            StepError::Encode(_) => {
                self.plan.encode.iter().flat_map(|encode| encode.sequences.iter().copied()).collect()
            }
            StepError::Decode(_) => self.plan.decode.iter().map(|decode| decode.sequence).collect(),
        };
        self.fail_all(failed, &error.to_string());
    }

    /// The scheduler sees nothing to do for sequences that are there: its books are wrong, and waiting would not help.
    pub(super) fn fail_stuck(&mut self) {
        self.fail_all(
            self.clients.keys().copied().collect(),
            "the scheduler plans nothing for live sequences",
        );
    }

    pub(super) fn fail_all(&mut self, failed: Vec<SequenceId>, error: &str) {
        tracing::error!(%error, sequences = failed.len(), "a step failed");
        for id in failed {
            self.end(id, |client| client.fail(SequenceError::Internal));
        }
    }

    /// Takes a sequence out, whatever it was doing, and lets its client know.
    pub(super) fn end(&mut self, id: SequenceId, tell: impl FnOnce(&Client)) {
        if let Some(client) = self.clients.remove(&id) {
            self.forget(id, &client);
            tell(&client);
        }
    }

    fn forget(&mut self, id: SequenceId, client: &Client) {
        self.parts.scheduler.remove(id);
        let load = &self.parts.load;
        if client.has_started() {
            load.end()
        } else {
            load.leave(1, client.cost())
        }
        if let Some(adapter) = client.adapter() {
            self.parts.observer.adapter_left(adapter, client.has_started());
        }
    }
}
