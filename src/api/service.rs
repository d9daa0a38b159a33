use std::{sync::Arc, time::Instant};

use super::{
    ApiError, Events, Gathering, Readiness, merge,
    meter::{Meter, PromptUsage},
    prompts::{AnswerLength, Prompts},
    texts::Texts,
};
use crate::{
    adapter::{AdapterLease, Catalogue},
    domain::{AdapterRef, GenerateRequest, ModelKind, ModelProfile, Prompt, SamplingParams, Scoring},
    engine::{EngineHandle, Submission, TokenStream},
    grammar::Grammars,
    telemetry::Metrics,
    tenancy::Principal,
    tokenizer::Tokenizer,
};

/// Tokens to generate where neither the request nor the card says.
pub const DEFAULT_MAX_TOKENS: u32 = 20;

/// The use cases of the server, once, whatever the wire. Only the wires' own forms are left to HTTP and gRPC.
#[derive(Clone)]
pub struct Service {
    /// The engines, each with the same model; a request goes to the least loaded one. Never empty.
    pub engines: Vec<EngineHandle>,
    /// The adapters.
    pub catalogue: Catalogue,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// What texts can be held to.
    pub grammars: Grammars,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether requests are served.
    pub readiness: Readiness,
    /// Most sequences (prompts times choices) of one request: more than the queue holds could never be taken.
    pub max_sequences: usize,
    /// Whether prompts and answers are logged.
    pub logs_texts: bool,
}

/// A request that runs.
pub struct Accepted {
    /// The model that runs it.
    pub model: Arc<ModelProfile>,
    /// The adapter generation that it runs with.
    pub adapter: Option<AdapterLease>,
    /// The tokens of its prompts, where they are scored.
    pub prompts: Vec<Vec<u32>>,
    /// What its sequences say, as it comes. Dropping it cancels them.
    pub events: Events,
    /// Takes the events up.
    pub gathering: Gathering,
    /// When its sequences were queued.
    pub submitted: Instant,
}

/// A text and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, the tokenizer's own included.
    pub ids: Vec<u32>,
    /// The vocabulary's entries, one for each id.
    pub pieces: Vec<String>,
}

impl Service {
    /// Starts a request of `principal` with the adapter that it names: template, tokens and limits are settled here, which may
    /// take milliseconds of computing, then its sequences are queued.
    ///
    /// # Errors
    /// Everything that is wrong with the request or the moment; nothing of it then runs on.
    pub fn generate(
        &self,
        principal: &Principal,
        request: &GenerateRequest,
        adapter: Option<AdapterLease>,
    ) -> Result<Accepted, ApiError> {
        let started = self.start(principal, request, adapter);
        started.inspect_err(|error| self.metrics.rejected.count(error.code.as_str()))
    }

    fn start(
        &self,
        principal: &Principal,
        request: &GenerateRequest,
        adapter: Option<AdapterLease>,
    ) -> Result<Accepted, ApiError> {
        debug_assert_eq!(principal.tenant().id, request.tenant, "a request is its principal's");
        self.readiness.check()?;
        principal.check_priority(request.priority)?;
        let engine = self.engine();
        let model = Arc::clone(engine.model());
        let param = if request.prompts.len() > 1 { "prompt" } else { "n" };
        self.check_sequences(request.prompts.len(), request.n as usize, param)?;
        check_logit_bias(&request.sampling, model.vocab_size)?;
        if request.scores_prompts && model.kind != ModelKind::Causal {
            let message =
                format!("model '{}' does not continue its prompt, so it can't score that", model.name);
            return Err(ApiError::invalid("echo", message));
        }
        let answer = AnswerLength {
            least: u32::from(!request.scores_prompts),
            asked: request.max_tokens,
            usual: adapter.as_ref().and_then(|held| held.card().max_tokens).or(request.usual_tokens),
        };
        let prompts =
            Prompts { tokenizer: &self.tokenizer, model: &model, adapter: adapter.as_ref(), answer };
        // What no prompt could change is said before any prompt is blamed.
        prompts.answer_to(1, request.min_tokens)?;
        let policy = request.truncate.unwrap_or_else(|| prompts.card_policy());
        let sequences = request.prompts.iter().enumerate().map(|(at, prompt)| {
            let param = if request.prompts.len() == 1 { "prompt".into() } else { format!("prompt[{at}]") };
            let blamed = match prompt {
                Prompt::Inputs(_) => "inputs",
                Prompt::Chat(_) => "messages",
                Prompt::Text(_) | Prompt::Ids(_) => &param,
            };
            let tokens = prompts.fit(prompts.encode(prompt, blamed)?, policy, blamed)?;
            let max_tokens = prompts.answer_to(tokens.len(), request.min_tokens)?;
            Ok(submission((principal, request), adapter.clone(), tokens, max_tokens))
        });
        let mut sequences = sequences.collect::<Result<Vec<_>, ApiError>>()?;
        let grammar = self.grammar(request)?;
        sequences.iter_mut().for_each(|one| one.grammar.clone_from(&grammar));
        let (count, n) = (sequences.len(), request.n as usize);
        let usage = PromptUsage::of(&sequences);
        let tokens = || sequences.iter().map(|one| one.tokens.clone()).collect();
        let prompts = if request.scores_prompts { tokens() } else { Vec::new() };
        let texts = Texts::wanted(self.logs_texts, &request.tenant);
        // Only requests that were queued are logged, and by then the sequences are the engine's.
        let read: Vec<Vec<u32>> = if texts.is_some() { tokens() } else { Vec::new() };
        let most: u64 = sequences.iter().map(|one| n as u64 * u64::from(one.max_tokens)).sum();
        let spending = principal.tenant().quotas.begin(usage.total() + most)?;
        let submissions: Vec<Submission> = sequences.into_iter().flat_map(|one| choices(one, n)).collect();
        let submitted = Instant::now();
        let streams = chunked(engine.submit_all(submissions)?, n);
        if let Some(adapter) = &adapter {
            self.metrics.adapter_requests.count_many(adapter.name(), (count * n) as u64);
        }
        let gathering = Gathering::new(count, n, request.sampling.logprobs > 0);
        let meter = Meter::new(Arc::clone(&self.metrics), principal, spending, usage);
        let mut events = meter.over(merge(streams));
        if let Some(texts) = texts {
            texts.log_prompts(&self.tokenizer, &read);
            events = texts.over(events, count, n);
        }
        Ok(Accepted { model, adapter, prompts, events, gathering, submitted })
    }

    /// The tokens of `prompt` as `generate` would read them, however long.
    ///
    /// # Errors
    /// Inputs that the adapter's template does not take.
    pub fn tokenize(&self, adapter: Option<&AdapterLease>, prompt: &Prompt) -> Result<Tokens, ApiError> {
        let model = self.engine().model();
        let answer = AnswerLength { least: 1, asked: None, usual: Some(DEFAULT_MAX_TOKENS) };
        let prompts = Prompts { tokenizer: &self.tokenizer, model, adapter, answer };
        let ids = prompts.encode(prompt, "prompt")?;
        let pieces = ids.iter().map(|&id| self.tokenizer.piece(id).unwrap_or_default()).collect();
        Ok(Tokens { ids, pieces })
    }

    /// The text of `ids`.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String, ApiError> {
        let size = self.engine().model().vocab_size;
        let model = self.engine().model();
        let most = model.context.max_prompt_rows(0) + model.context.max_new_tokens(0);
        if ids.len() > most {
            let message =
                format!("{} ids were sent and {most} are taken at once: send them in parts", ids.len());
            return Err(ApiError::invalid("ids", message));
        }
        if let Some(at) = ids.iter().position(|&id| id as usize >= size) {
            let message =
                format!("token id {} is outside the vocabulary: ids are 0 to {}", ids[at], size - 1);
            return Err(ApiError::invalid(format!("ids[{at}]"), message));
        }
        Ok(self.tokenizer.decode(ids))
    }

    /// The least loaded engine.
    pub(super) fn engine(&self) -> &EngineHandle {
        let load = |engine: &&EngineHandle| {
            let load = engine.load();
            load.waiting() + load.running()
        };
        self.engines.iter().min_by_key(load).expect("a service has an engine")
    }

    /// The name under which a request asks for the model: the adapter's, or the backbone's own.
    pub(super) fn asked_for(&self, adapter: Option<&AdapterRef>) -> String {
        adapter.map_or_else(|| self.engine().model().name.clone(), AdapterRef::to_string)
    }

    /// Whether a request may have so many sequences: `prompts` times the choices (or labels) of each.
    pub(super) fn check_sequences(&self, prompts: usize, each: usize, param: &str) -> Result<(), ApiError> {
        let (count, most) = (prompts.saturating_mul(each), self.max_sequences);
        if count <= most {
            return Ok(());
        }
        let message = format!(
            "{prompts} prompts of {each} each are {count} sequences and one request takes {most}: send several requests"
        );
        Err(ApiError::invalid(param, message))
    }
}

/// A bias on a token that there is not would do nothing, and nobody would know.
fn check_logit_bias(sampling: &SamplingParams, vocab: usize) -> Result<(), ApiError> {
    match sampling.logit_bias.iter().find(|&&(token, _)| token as usize >= vocab) {
        None => Ok(()),
        Some((token, _)) => {
            let message = format!("token id {token} is outside the vocabulary: ids are 0 to {}", vocab - 1);
            Err(ApiError::invalid(format!("logit_bias.{token}"), message))
        }
    }
}

/// One sequence of a request.
fn submission(
    (principal, request): (&Principal, &GenerateRequest),
    adapter: Option<AdapterLease>,
    tokens: Vec<u32>,
    max_tokens: u32,
) -> Submission {
    Submission {
        tenant: request.tenant.clone(),
        weight: principal.tenant().weight,
        adapter,
        tokens,
        given: Vec::new(),
        scoring: if request.scores_prompts { Scoring::Prompt } else { Scoring::Off },
        sampling: request.sampling.clone(),
        max_tokens,
        min_tokens: request.min_tokens,
        stop: request.stop.clone(),
        grammar: None,
        priority: request.priority,
        // A deadline beyond the clock's end is none.
        deadline: request.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
    }
}

/// The `n` choices of one prompt: choice i draws with seed + i.
fn choices(submission: Submission, n: usize) -> impl Iterator<Item = Submission> {
    let seed = submission.sampling.seed.unwrap_or_else(rand::random);
    (0..n as u64).map(move |choice| {
        let sampling = SamplingParams::with_seed(submission.sampling.clone(), seed.wrapping_add(choice));
        Submission { sampling, ..submission.clone() }
    })
}

/// Streams of all choices, by prompt.
fn chunked(streams: Vec<TokenStream>, n: usize) -> Vec<Vec<TokenStream>> {
    let mut streams = streams.into_iter();
    let prompts = streams.len() / n;
    (0..prompts).map(|_| streams.by_ref().take(n).collect()).collect()
}
