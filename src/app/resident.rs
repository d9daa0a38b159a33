//! A model with its engine, its adapters and the use cases over them: a server without doors.

use std::{num::NonZeroU32, sync::Arc, thread::JoinHandle, time::Instant};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared},
};

use super::{
    AppError,
    load::{LoadedModel, load_model},
    weights_cache::{Keeping, Unkept},
};
use crate::{
    adapter::{BackboneShape, Catalogue, CatalogueConfig, Task, catalogue::ScanFailure},
    api::{Readiness, Service, State},
    config::EngineConfig,
    domain::{ModelKind, ModelProfile, SamplingParams, Scoring, TenantId, TokenEvent},
    engine::{EngineHandle, Submission},
    grammar::Grammars,
    kernels::heap,
    telemetry::Metrics,
};

/// A model that answers.
pub struct Resident {
    /// The use cases.
    pub service: Arc<Service>,
    engine: EngineHandle,
    /// Ends when the engine's thread does; whether it ended in good order.
    ended: Shared<BoxFuture<'static, bool>>,
    /// Waited for at the end.
    _keeping: Option<Keeping>,
}

impl Resident {
    /// Loads the model and the adapters, starts the engine and runs one step. Not ready yet: that is for who opens the
    /// doors to say.
    ///
    /// # Errors
    /// When the model can't be loaded or does not answer, or the adapters' root can't be listed.
    pub async fn start(
        config: EngineConfig,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> Result<Self, AppError> {
        let (counted, engine_config) = (Arc::clone(&metrics), config.clone());
        let load = move || -> Result<_, AppError> {
            let started = start_engine(load_model(&engine_config)?, &engine_config, counted)?;
            if !heap::keep_between_steps() {
                tracing::warn!("the C library won't keep memory between steps: long prompts take longer");
            }
            Ok(started)
        };
        let (engine, thread, tokenizer, grammars, unkept) =
            tokio::task::spawn_blocking(load).await.map_err(std::io::Error::other)??;
        let catalogue = open_catalogue(&config, engine.model(), &metrics).await?;
        warm_up(&engine).await?;
        let keeping = unkept.map(Unkept::keep);
        let (engines, max_sequences) = (vec![engine.clone()], config.queue_requests);
        let service = Service {
            engines,
            catalogue,
            tokenizer,
            grammars,
            metrics,
            readiness,
            max_sequences,
            logs_texts: false,
        };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
        let ended = joined.map(|joined| joined.unwrap_or(false)).boxed().shared();
        Ok(Self { service: Arc::new(service), engine, ended, _keeping: keeping })
    }

    /// The same, which logs prompts and answers where `logs_texts`.
    pub fn logging_texts(mut self, logs_texts: bool) -> Self {
        Arc::make_mut(&mut self.service).logs_texts = logs_texts;
        self
    }

    /// Whether requests are served, which starts as no.
    pub fn readiness(&self) -> &Readiness {
        &self.service.readiness
    }

    /// The resident model.
    pub fn model(&self) -> &ModelProfile {
        self.engine.model()
    }

    /// What begins the drain: nothing new is taken, what runs may finish until the deadline.
    pub fn drain(&self) -> impl FnOnce(Instant) + Send + 'static {
        let (readiness, engine) = (self.readiness().clone(), self.engine.clone());
        move |deadline| {
            readiness.set(State::Draining);
            engine.drain(deadline);
        }
    }

    /// Resolves when the engine has ended, which a drain makes it do: whether in good order.
    pub fn ended(&self) -> impl Future<Output = bool> + Send + 'static {
        self.ended.clone()
    }
}

type Started = (EngineHandle, JoinHandle<()>, crate::tokenizer::Tokenizer, Grammars, Option<Unkept>);

fn start_engine(
    mut model: LoadedModel,
    config: &EngineConfig,
    metrics: Arc<Metrics>,
) -> Result<Started, AppError> {
    let (tokenizer, grammars, unkept) = (model.tokenizer.clone(), model.grammars(), model.unkept.take());
    let (engine, thread) = model.start(config, metrics)?;
    Ok((engine, thread, tokenizer, grammars, unkept))
}

/// The adapters of the configured place. Unsound folders are logged and left out.
async fn open_catalogue(
    config: &EngineConfig,
    model: &ModelProfile,
    metrics: &Arc<Metrics>,
) -> Result<Catalogue, AppError> {
    let backbone = BackboneShape {
        hidden: model.hidden,
        task: match model.kind {
            ModelKind::Seq2Seq => Task::Seq2SeqLm,
            ModelKind::Causal => Task::CausalLm,
        },
        name: model.name.clone(),
        fingerprint: Some(model.fingerprint.clone()),
    };
    let config = CatalogueConfig {
        location: config.adapters.clone(),
        backbone,
        host_bytes: config.adapter_host_bytes,
        interval: config.adapters_interval,
    };
    let (catalogue, failures) = Catalogue::open(config, Arc::clone(metrics)).await?;
    failures.iter().for_each(ScanFailure::warn);
    Ok(catalogue)
}

/// Runs one short sequence, so that the first request finds memory touched and the model known to work.
async fn warm_up(engine: &EngineHandle) -> Result<(), AppError> {
    let submission = Submission {
        tenant: TenantId::default_tenant(),
        weight: NonZeroU32::MIN,
        adapter: None,
        tokens: vec![0],
        given: Vec::new(),
        scoring: Scoring::Off,
        sampling: SamplingParams::greedy(),
        max_tokens: 1,
        min_tokens: 0,
        stop: Vec::new(),
        grammar: None,
        priority: 0,
        deadline: None,
    };
    let mut events = engine.submit(submission).map_err(|error| AppError::WarmUp(error.to_string()))?;
    while let Some(event) = events.next().await {
        match event {
            TokenEvent::Given(_) | TokenEvent::Token(_) => {}
            TokenEvent::Finished(_) => return Ok(()),
            TokenEvent::Failed(error, _) => return Err(AppError::WarmUp(error.to_string())),
        }
    }
    Err(AppError::WarmUp("its thread has ended; the log says why".to_owned()))
}
