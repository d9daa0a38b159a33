//! Which of some labels is the likeliest answer.
//!
//! A label's score is the log-likelihood of its tokens and the end token behind the prompt. The labels of a prompt are one
//! batch of the model's steps, and the prompt is computed for the first of them only (an encoder's output wholly, a
//! decoder-only model's up to its last unfinished block).

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use futures::StreamExt;

use super::{
    ApiError, Choice, Events, Gathering, Service,
    frame::account::Account,
    merge,
    meter::{Meter, PromptUsage},
    prompts::{AnswerLength, Prompts},
    texts::Texts,
    trace::traced,
};
use crate::{
    adapter::AdapterLease,
    domain::{
        ClassifyRequest, ModelKind, Normalize, OverLength, Prompt, SamplingParams, Scoring, Timings, Usage,
    },
    engine::Submission,
    tenancy::Principal,
};

/// What stands for a prompt without content (Zhao et al., *Calibrate Before Use*, ICML 2021).
const CONTENT_FREE: &str = "N/A";

/// Most labels of a request.
pub const MAX_LABELS: usize = 256;

/// The labels of one prompt, scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// The scores, in the order of the labels. Never empty.
    pub scores: Vec<LabelScore>,
    /// Token counts; the prompt is counted once, and nothing is generated.
    pub usage: Usage,
    /// Where the time went; of the slowest label.
    pub timings: Timings,
}

/// One label's score.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelScore {
    /// What the model would say.
    pub text: String,
    /// What the adapter's card calls that.
    pub label: Option<String>,
    /// The score: a log-likelihood, normalised and calibrated as was asked.
    pub logprob: f64,
    /// The share of the exponentiated scores.
    pub probability: f64,
}

impl Classified {
    /// The likeliest label; the first of equal ones.
    pub fn best(&self) -> &LabelScore {
        let better = |best: &&LabelScore, other: &&LabelScore| best.logprob.total_cmp(&other.logprob).is_lt();
        let mut scores = self.scores.iter();
        let first = scores.next().expect("there is a label");
        scores.fold(first, |best, other| if better(&best, &other) { other } else { best })
    }
}

/// A classification that runs. Dropping it cancels it.
pub struct Classifying {
    /// The adapter generation that it runs with.
    pub adapter: Option<AdapterLease>,
    /// The resident model's name.
    pub model: String,
    labels: Vec<String>,
    normalize: Normalize,
    calibrate: bool,
    events: Events,
    gathering: Gathering,
    submitted: Instant,
    /// Where texts are logged.
    texts: Option<Texts>,
}

impl Service {
    /// Starts a classification with the adapter that it names: everything is settled here, then all labels of all prompts are queued.
    ///
    /// # Errors
    /// Everything that is wrong with the request or the moment; nothing of it then runs on.
    pub fn classify(
        &self,
        principal: &Principal,
        request: &ClassifyRequest,
        adapter: Option<AdapterLease>,
    ) -> Result<Classifying, ApiError> {
        let started = self.start_scoring(principal, request, adapter);
        started.inspect_err(|error| self.metrics.rejected.count(error.code.as_str()))
    }

    fn start_scoring(
        &self,
        principal: &Principal,
        request: &ClassifyRequest,
        adapter: Option<AdapterLease>,
    ) -> Result<Classifying, ApiError> {
        debug_assert_eq!(principal.tenant().id, request.tenant, "a request is its principal's");
        self.readiness.check()?;
        principal.check_priority(request.priority)?;
        let engine = self.engine();
        let model = engine.model();
        let labels = labels(request.labels.as_deref(), adapter.as_ref())?;
        let given = self.label_tokens(&labels, model.kind, model.eos)?;
        let longest = given.iter().map(Vec::len).max().unwrap_or(0);
        let answer = AnswerLength { least: 1, asked: u32::try_from(longest).ok(), usual: Some(1) };
        let prompts = Prompts { tokenizer: &self.tokenizer, model, adapter: adapter.as_ref(), answer };
        let tokens = prompts_to_score(&prompts, request)?;
        self.check_sequences(tokens.len(), given.len(), "labels")?;
        let deadline = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let submission = |tokens: &[u32], given: &[u32]| Submission {
            tenant: request.tenant.clone(),
            weight: principal.tenant().weight,
            adapter: adapter.clone(),
            tokens: tokens.to_vec(),
            given: given.to_vec(),
            scoring: Scoring::Given,
            sampling: SamplingParams::greedy(),
            max_tokens: 0,
            min_tokens: 0,
            stop: Vec::new(),
            grammar: None,
            priority: request.priority,
            deadline,
        };
        let submissions: Vec<Submission> =
            tokens.iter().flat_map(|tokens| given.iter().map(|given| submission(tokens, given))).collect();
        // A prompt is paid once, its labels each.
        let prompts_alone: Vec<Submission> = tokens.iter().map(|tokens| submission(tokens, &[])).collect();
        let PromptUsage { prompt, virtual_ } = PromptUsage::of(&prompts_alone);
        let labels_of_all = tokens.len() * given.iter().map(Vec::len).sum::<usize>();
        let usage = PromptUsage { prompt: prompt + labels_of_all as u64, virtual_ };
        let spending = principal.tenant().quotas.begin(usage.total())?;
        let (count, model) = (submissions.len(), model.name.clone());
        let submitted = Instant::now();
        let mut streams = engine.submit_all(submissions)?.into_iter();
        let streams: Vec<Vec<_>> =
            tokens.iter().map(|_| streams.by_ref().take(given.len()).collect()).collect();
        if let Some(adapter) = &adapter {
            self.metrics.adapter_requests.count_many(adapter.name(), count as u64);
        }
        let meter = Meter::new(Arc::clone(&self.metrics), principal, spending, usage);
        let texts = Texts::wanted(self.logs_texts, &request.tenant);
        if let Some(texts) = &texts {
            // Without the one of no content, which is nobody's.
            texts.log_prompts(&self.tokenizer, &tokens[..request.prompts.len()]);
        }
        Ok(Classifying {
            adapter,
            model,
            normalize: request.normalize,
            calibrate: request.calibrate,
            gathering: Gathering::new(tokens.len(), labels.len(), false),
            labels,
            events: meter.over(merge(streams)),
            submitted,
            texts,
        })
    }

    /// The tokens of each label and the end token.
    fn label_tokens(
        &self,
        labels: &[String],
        kind: ModelKind,
        eos: Option<u32>,
    ) -> Result<Vec<Vec<u32>>, ApiError> {
        let tokens = |(at, label): (usize, &String)| {
            let encoded = match kind {
                // A T5's own form of a text ends with the end token.
                ModelKind::Seq2Seq => self.tokenizer.encode(label),
                ModelKind::Causal => self.tokenizer.encode_bare(label),
            };
            let param = format!("labels[{at}]");
            let mut tokens = encoded.map_err(|error| ApiError::invalid(&param, error.to_string()))?;
            if tokens.last() != eos.as_ref() {
                tokens.extend(eos);
            }
            Ok(tokens)
        };
        labels.iter().enumerate().map(tokens).collect()
    }
}

/// The tokens of each prompt, and behind them, where the scores are to be calibrated, those of one without content.
fn prompts_to_score(prompts: &Prompts<'_>, request: &ClassifyRequest) -> Result<Vec<Vec<u32>>, ApiError> {
    let policy = request.truncate.unwrap_or_else(|| prompts.card_policy());
    let mut tokens = Vec::with_capacity(request.prompts.len() + 1);
    for (at, prompt) in request.prompts.iter().enumerate() {
        let param = if request.prompts.len() == 1 { "prompt".into() } else { format!("prompts[{at}]") };
        let param = if matches!(prompt, Prompt::Inputs(_)) { "inputs" } else { &param };
        tokens.push(prompts.fit(prompts.encode(prompt, param)?, policy, param)?);
    }
    if request.calibrate {
        let empty = content_free(&request.prompts);
        tokens.push(prompts.fit(prompts.encode(&empty, "calibrate")?, OverLength::Error, "calibrate")?);
    }
    Ok(tokens)
}

/// The labels to score: the request's, else those of the adapter's card.
fn labels(asked: Option<&[String]>, adapter: Option<&AdapterLease>) -> Result<Vec<String>, ApiError> {
    let labels = match (asked, adapter) {
        (Some(labels), _) => labels.to_vec(),
        (None, Some(adapter)) if !adapter.card().labels.is_empty() => {
            adapter.card().labels.keys().cloned().collect()
        }
        (None, Some(adapter)) => {
            let message = format!("adapter '{}' has no labels on its card: send labels", adapter.name());
            return Err(ApiError::invalid("labels", message));
        }
        (None, None) => {
            return Err(ApiError::invalid("labels", "labels are missing: send them, or name an adapter"));
        }
    };
    let count = labels.len();
    if !(2..=MAX_LABELS).contains(&count) {
        return Err(ApiError::invalid("labels", format!("there are {count} labels: send 2 to {MAX_LABELS}")));
    }
    let mut seen = BTreeMap::new();
    for (at, label) in labels.iter().enumerate() {
        let param = format!("labels[{at}]");
        if label.trim().is_empty() {
            return Err(ApiError::invalid(param, "the label is empty: send some text"));
        }
        if let Some(first) = seen.insert(label, at) {
            let message = format!("'{label}' is labels[{first}] too: send each label once");
            return Err(ApiError::invalid(param, message));
        }
    }
    Ok(labels)
}

/// The prompt without content: with the fields of the first one, where prompts are fields.
fn content_free(prompts: &[Prompt]) -> Prompt {
    match prompts.first() {
        Some(Prompt::Inputs(inputs)) => {
            Prompt::Inputs(inputs.keys().map(|field| (field.clone(), CONTENT_FREE.to_owned())).collect())
        }
        _ => Prompt::Text(CONTENT_FREE.to_owned()),
    }
}

impl Classifying {
    /// The same, whose times become spans of the request's trace where that is recorded.
    pub(super) fn traced(self, account: &Arc<Account>) -> Self {
        let Some(trace) = account.trace() else { return self };
        trace.answers(&self.model, self.adapter.as_ref());
        let events = traced(self.events, account, self.submitted);
        Self { events, ..self }
    }

    /// Waits for the scores of every prompt, in order.
    ///
    /// # Errors
    /// The first failure of a sequence; the others are then cancelled.
    pub async fn finish(mut self) -> Result<Vec<Classified>, ApiError> {
        while let Some((place, event)) = self.events.next().await {
            self.gathering.take(place, event)?;
        }
        let mut results = self.gathering.finish()?;
        let raw = |choice: &Choice| {
            let sum: f64 = choice.given.iter().map(|token| f64::from(token.logprob)).sum();
            match self.normalize {
                Normalize::None => sum,
                Normalize::Length => sum / choice.given.len().max(1) as f64,
            }
        };
        let blank = if self.calibrate { results.pop() } else { None };
        let blank: Vec<f64> =
            blank.map_or(vec![0.0; self.labels.len()], |choices| choices.iter().map(raw).collect());
        let classified = results.into_iter().map(|choices| {
            let scores = choices.iter().zip(&blank).map(|(choice, blank)| raw(choice) - blank).collect();
            classified(&self.labels, self.adapter.as_ref(), &choices, scores)
        });
        let classified: Vec<Classified> = classified.collect();
        if let Some(texts) = &self.texts {
            texts.log_labels(classified.iter().map(|one| one.best().text.as_str()));
        }
        Ok(classified)
    }
}

fn classified(
    labels: &[String],
    adapter: Option<&AdapterLease>,
    choices: &[Choice],
    scores: Vec<f64>,
) -> Classified {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    let named = labels.iter().zip(scores).map(|(text, logprob)| LabelScore {
        label: adapter.and_then(|adapter| adapter.card().label(text)).map(str::to_owned),
        text: text.clone(),
        logprob,
        probability: (logprob - largest).exp() / total,
    });
    // The first label is the one whose sequence computed the prompt, unless an earlier request did.
    let usage = choices.first().map(|choice| choice.usage).unwrap_or_default();
    let timings = choices.iter().map(|choice| choice.timings).max_by_key(Timings::total);
    Classified { scores: named.collect(), usage, timings: timings.unwrap_or_default() }
}
