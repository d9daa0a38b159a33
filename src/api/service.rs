use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    ApiError, Events, Gathering, Readiness, merge,
    meter::{Meter, PromptUsage},
    prompts::Prompts,
};
use crate::{
    adapter::{AdapterLease, Generation, Registry, RegistryError},
    domain::{AdapterName, AdapterRef, GenerateRequest, ModelProfile, Prompt, SamplingParams},
    engine::{EngineHandle, Submission, TokenStream},
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
    pub registry: Arc<Registry>,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether requests are served.
    pub readiness: Readiness,
    /// Most sequences (prompts times choices) of one request: more than the queue holds could never be taken.
    pub max_sequences: usize,
}

/// A request that runs.
pub struct Accepted {
    /// The model that runs it.
    pub model: Arc<ModelProfile>,
    /// The adapter generation that it runs with.
    pub adapter: Option<AdapterLease>,
    /// What its sequences say, as it comes. Dropping it cancels them.
    pub events: Events,
    /// Takes the events up.
    pub gathering: Gathering,
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
    /// Starts a request of `principal`: adapter, template, tokens and limits are settled here, then its sequences are
    /// queued.
    ///
    /// # Errors
    /// Everything that is wrong with the request or the moment; nothing of it then runs on.
    pub fn generate(&self, principal: &Principal, request: &GenerateRequest) -> Result<Accepted, ApiError> {
        self.start(principal, request).inspect_err(|error| self.metrics.rejected.count(error.code.as_str()))
    }

    fn start(&self, principal: &Principal, request: &GenerateRequest) -> Result<Accepted, ApiError> {
        debug_assert_eq!(principal.tenant().id, request.tenant, "a request is its principal's");
        self.readiness.check()?;
        principal.check_priority(request.priority)?;
        let engine = self.engine();
        let model = Arc::clone(engine.model());
        let adapter = request.adapter.as_ref().map(|wanted| self.acquire(principal, wanted)).transpose()?;
        self.check_sequences(request)?;
        let template = self.submission(request, &model, adapter.clone())?;
        let prompts = Prompts { tokenizer: &self.tokenizer, model: &model, adapter: adapter.as_ref() };
        let policy = request.truncate.unwrap_or_else(|| prompts.card_policy());
        let tokens = request.prompts.iter().enumerate().map(|(at, prompt)| {
            let param = if request.prompts.len() == 1 { "prompt".into() } else { format!("prompt[{at}]") };
            let blamed = if matches!(prompt, Prompt::Inputs(_)) { "inputs" } else { &param };
            prompts.fit(prompts.encode(prompt, blamed)?, policy, blamed)
        });
        let tokens = tokens.collect::<Result<Vec<_>, ApiError>>()?;
        let (count, n) = (tokens.len(), request.n as usize);
        let usage = PromptUsage {
            prompt: tokens.iter().map(|tokens| tokens.len() as u64).sum(),
            virtual_: adapter
                .as_ref()
                .map_or(0, |adapter| (count * adapter.weights().prompt_length()) as u64),
        };
        let most = (count * n) as u64 * u64::from(template.max_tokens);
        let spending = principal.tenant().quotas.begin(usage.total() + most)?;
        let submissions: Vec<Submission> = tokens
            .into_iter()
            .flat_map(|tokens| choices(Submission { tokens, ..template.clone() }, n))
            .collect();
        let streams = chunked(engine.submit_all(submissions)?, n);
        if let Some(adapter) = &adapter {
            self.metrics.adapter_requests.count_many(adapter.name(), (count * n) as u64);
        }
        let gathering = Gathering::new(count, n, request.sampling.logprobs > 0);
        let meter = Meter::new(Arc::clone(&self.metrics), principal, spending, usage);
        Ok(Accepted { model, adapter, events: meter.over(merge(streams)), gathering })
    }

    /// The current generations that `principal` may use, in the order of their names: at most `limit`, behind the name
    /// `after`. Also whether there are more.
    pub fn list_adapters(
        &self,
        principal: &Principal,
        limit: usize,
        after: Option<&str>,
    ) -> (Vec<Arc<Generation>>, bool) {
        let mut list = self.registry.list();
        list.retain(|adapter| {
            after.is_none_or(|after| adapter.name().as_str() > after) && principal.may_use(adapter.name())
        });
        let more = list.len() > limit;
        list.truncate(limit);
        (list, more)
    }

    /// The current generation of `name`.
    ///
    /// # Errors
    /// `adapter_not_found`.
    pub fn get_adapter(&self, principal: &Principal, name: AdapterName) -> Result<AdapterLease, ApiError> {
        self.acquire(principal, &AdapterRef { name, version: None })
    }

    /// The adapter, if there is one that `principal` may use. One that it may not use is looked up all the same: it is
    /// as far away as a name that does not exist.
    fn acquire(&self, principal: &Principal, wanted: &AdapterRef) -> Result<AdapterLease, ApiError> {
        let may_use = principal.may_use(&wanted.name);
        match self.registry.acquire(wanted) {
            Ok(adapter) if may_use => Ok(adapter),
            Err(error) if may_use && !matches!(error, RegistryError::UnknownAdapter { .. }) => {
                Err(error.into())
            }
            _ => Err(ApiError::no_adapter(&wanted.name)),
        }
    }

    /// The tokens of `prompt` as `generate` would read them, however long.
    ///
    /// # Errors
    /// An unknown adapter or inputs that its template does not take.
    pub fn tokenize(
        &self,
        principal: &Principal,
        adapter: Option<&AdapterRef>,
        prompt: &Prompt,
    ) -> Result<Tokens, ApiError> {
        let adapter = adapter.map(|wanted| self.acquire(principal, wanted)).transpose()?;
        let model = self.engine().model();
        let prompts = Prompts { tokenizer: &self.tokenizer, model, adapter: adapter.as_ref() };
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
        let most = model.max_prompt_rows + model.max_new_tokens;
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
    fn engine(&self) -> &EngineHandle {
        let load = |engine: &&EngineHandle| {
            let load = engine.load();
            load.waiting.load(Ordering::Relaxed) + load.running.load(Ordering::Relaxed)
        };
        self.engines.iter().min_by_key(load).expect("a service has an engine")
    }

    fn check_sequences(&self, request: &GenerateRequest) -> Result<(), ApiError> {
        let (prompts, n) = (request.prompts.len(), request.n as usize);
        let most = self.max_sequences;
        if prompts.saturating_mul(n) <= most {
            return Ok(());
        }
        let param = if prompts > 1 { "prompt" } else { "n" };
        let message = format!(
            "{prompts} prompts of {n} choices are {} sequences and one request takes {most}: send several requests",
            prompts.saturating_mul(n)
        );
        Err(ApiError::invalid(param, message))
    }

    /// What all sequences of a request have in common; the tokens are still to come.
    fn submission(
        &self,
        request: &GenerateRequest,
        model: &ModelProfile,
        adapter: Option<AdapterLease>,
    ) -> Result<Submission, ApiError> {
        let most = u32::try_from(model.max_new_tokens).unwrap_or(u32::MAX);
        let by_card = adapter.as_ref().and_then(|adapter| adapter.card().max_tokens);
        let max_tokens =
            request.max_tokens.unwrap_or_else(|| by_card.unwrap_or(DEFAULT_MAX_TOKENS).min(most));
        if !(1..=most).contains(&max_tokens) {
            let message =
                format!("max_tokens is {max_tokens}: model '{}' generates 1 to {most} tokens", model.name);
            return Err(ApiError::invalid("max_tokens", message));
        }
        if request.min_tokens > max_tokens {
            let message = format!("min_tokens is {}: use 0 to max_tokens ({max_tokens})", request.min_tokens);
            return Err(ApiError::invalid("min_tokens", message));
        }
        Ok(Submission {
            tenant: request.tenant.clone(),
            adapter,
            tokens: Vec::new(),
            sampling: request.sampling.clone(),
            max_tokens,
            min_tokens: request.min_tokens,
            stop: request.stop.clone(),
            priority: request.priority,
            // A deadline beyond the clock's end is none.
            deadline: request.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        })
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
