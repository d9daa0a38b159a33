//! From a model's name to an engine that runs it.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use super::{
    backbone::{Backbone, Dimensions},
    place::{isa, kv_dtype, place},
    weights_cache::{Unkept, WeightsCache},
};
use crate::{
    backbones::{
        decoder,
        hub::{Hub, HubError},
        t5,
        weights::{Weights, WeightsError},
    },
    config::{EngineConfig, HubSettings, ModelSource},
    domain::{ContextWindow, ModelProfile},
    engine::{Engine, EngineHandle, EngineParts, QueueLimits},
    grammar::Grammars,
    kernels::{
        CardError, Place,
        pool::{ComputePool, PoolError},
    },
    layers::{LoadError, Loader, PackedParts},
    runner::{KvDtype, RunnerConfig, RunnerError},
    scheduler::{Scheduler, SchedulerConfig},
    telemetry::Metrics,
    tokenizer::{ChatTemplate, Tokenizer, TokenizerError},
};

/// Positions a K/V block: small enough that a short answer wastes little, large enough that tables stay short.
const BLOCK_SIZE: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadModelError {
    /// The checkpoint can't be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The hub has not given it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The configuration is not one of a T5 that can be run.
    #[error(transparent)]
    T5(#[from] t5::ConfigError),
    /// The configuration is not one of a decoder-only model that can be run.
    #[error(transparent)]
    Decoder(#[from] decoder::ConfigError),
    /// A layer can't be made.
    #[error(transparent)]
    Layers(#[from] LoadError),
    /// The tokenizer can't be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The threads can't be started.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The K/V memory can't be had.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The K/V memory is too small for a single sequence.
    #[error(
        "--kv-cache-bytes gives {found} blocks of K/V memory and the longest sequence needs {needed}: give at least \
         {bytes} bytes, or lower --max-model-len"
    )]
    KvMemory {
        /// Blocks that the memory holds.
        found: usize,
        /// Blocks that a sequence of the greatest length needs.
        needed: usize,
        /// Memory that would do.
        bytes: usize,
    },
    /// The engine's thread can't be started.
    #[error("the system refused a thread for the engine: {0}")]
    Thread(std::io::Error),
    /// A GPU was asked for and can't be used.
    #[error("--device cuda:{ordinal}: {why}")]
    Card {
        /// Which one.
        ordinal: usize,
        /// Why not.
        why: CardError,
    },
    /// A GPU was asked for in training.
    #[error("--device cuda:{0}: training computes on the CPU; use --device cpu or auto")]
    TrainsOnCpu(usize),
    /// Numbers for keys and values where a GPU has its own.
    #[error(
        "--kv-cache-dtype {0} is for the CPU: a GPU keeps keys and values in the numbers of --dtype; leave it at auto"
    )]
    KvCacheDtype(&'static str),
    /// Instructions that the machine lacks.
    #[error(
        "--cpu-isa {asked}: this machine has no such instructions, or keeps them from this process; leave it at auto, which is {fastest} here"
    )]
    CpuIsa {
        /// As asked.
        asked: &'static str,
        /// What there is.
        fastest: &'static str,
    },
    /// A format of weights that the device has no kernels for.
    #[error("--dtype {dtype} is not for {device}: {instead}")]
    Dtype {
        /// As asked.
        dtype: &'static str,
        /// Where.
        device: &'static str,
        /// What to do.
        instead: &'static str,
    },
}

/// A resident model with its tokenizer.
#[derive(Debug)]
pub struct LoadedModel {
    /// What the rest of the server knows of it.
    pub profile: Arc<ModelProfile>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its packed weights, where they are to be kept for the next start.
    pub unkept: Option<Unkept>,
    model: Backbone,
    kv_dtype: KvDtype,
}

/// Loads a model. Takes as long as reading and packing its weights takes.
///
/// # Errors
/// When a file is missing, broken or of a model that can't be run.
pub fn load_model(config: &EngineConfig) -> Result<LoadedModel, LoadModelError> {
    let (place, recipe) = place(config)?;
    let isa = isa(config.cpu_isa)?;
    let path = locate(&config.model)?;
    let weights = Weights::open(&path)?;
    let kv_dtype = kv_dtype(&place, (config.kv_cache_dtype, config.dtype), &weights)?;
    let dimensions = Dimensions::read(&weights)?;
    let context = dimensions.context(config.max_model_len);
    let threads = NonZeroUsize::new(config.threads).unwrap_or(NonZeroUsize::MIN);
    let pool = ComputePool::new(threads)?;
    if let Place::Cpu = place {
        tracing::info!(isa = isa.name(), threads, "linear maps are computed on the CPU");
    }
    let folder = config.weights_cache.as_deref().filter(|_| matches!(place, Place::Cpu));
    // The vocabulary takes about as long to read as the weights take to hash or pack, and neither needs the other.
    let (model, tokenizer, unkept) = std::thread::scope(|scope| {
        let aside = scope.spawn(|| {
            let tokenizer = read_tokenizer(&path, &weights);
            weights.fingerprint();
            tokenizer
        });
        let cache = folder.map(|folder| WeightsCache { folder, weights: &weights, recipe });
        let packed = cache.as_ref().map_or(PackedParts::Fresh, WeightsCache::open);
        let loader = Loader { weights: &weights, place, recipe, pool, isa, gradients: false, packed };
        let model = dimensions.load(&loader, context);
        let tokenizer = aside.join();
        let unkept = match (&model, cache, loader.packed) {
            (Ok(_), Some(cache), PackedParts::Remembered(parts)) => Some(cache.unkept(parts.into_inner())),
            _ => None,
        };
        (model, tokenizer, unkept)
    });
    let model = model?;
    let tokenizer = tokenizer.unwrap_or_else(|_| read_tokenizer(&path, &weights))?;
    let profile = ModelProfile {
        name: config.model_name.clone(),
        fingerprint: weights.fingerprint().to_owned(),
        kind: model.kind(),
        hidden: model.hidden(),
        vocab_size: model.vocab(),
        eos: model.eos().first().copied(),
        context,
    };
    Ok(LoadedModel { profile: Arc::new(profile), tokenizer, unkept, model, kv_dtype })
}

/// The model's folder or file, fetched from the hub where it is one of the hub's.
pub(super) fn locate(source: &ModelSource) -> Result<PathBuf, LoadModelError> {
    match source {
        ModelSource::Folder(path) | ModelSource::Gguf(path) => Ok(path.clone()),
        ModelSource::Hub(model) => Ok(Hub::new(HubSettings::from_environment())?.fetch(model)?),
    }
}

/// The model's own tokenizer, unless a tokenizer.json lies beside a GGUF file: then that one. Its chat template goes with it.
pub(super) fn read_tokenizer(path: &Path, weights: &Weights) -> Result<Tokenizer, TokenizerError> {
    let beside = path.with_file_name("tokenizer.json");
    let is_beside = path.is_file() && beside.is_file();
    let tokenizer = if is_beside { Tokenizer::from_file(&beside)? } else { weights.tokenizer()? };
    let folder = path.parent().filter(|_| is_beside);
    let template = match folder.map(ChatTemplate::from_folder).transpose() {
        Ok(Some(Some(template))) => Ok(Some(template)),
        Ok(_) => weights.chat_template(),
        Err(error) => Err(error),
    };
    if let Err(error) = &template {
        tracing::warn!(%error, "chat completions will be refused");
    }
    Ok(tokenizer.with_chat_template(template))
}

impl LoadedModel {
    /// What its texts can be held to.
    pub fn grammars(&self) -> Grammars {
        Grammars::new(self.tokenizer.clone(), self.sayable(), self.model.eos())
    }

    /// Rows of logits that are tokens: those beyond the tokenizer's ids are padding, nothing that could be said.
    fn sayable(&self) -> usize {
        self.model.vocab().min(self.tokenizer.id_bound())
    }

    /// Starts an engine on the model.
    ///
    /// # Errors
    /// When there is not enough K/V memory or no thread.
    pub fn start(
        self,
        config: &EngineConfig,
        metrics: Arc<Metrics>,
    ) -> Result<(EngineHandle, JoinHandle<()>), LoadModelError> {
        let num_blocks = self.num_blocks(config.kv_cache_bytes)?;
        let vocab = self.sayable();
        let Self { profile, tokenizer, model, kv_dtype, unkept: _ } = self;
        let queue = QueueLimits { sequences: config.queue_requests, tokens: config.queue_tokens };
        let (handle, inbox) = EngineHandle::channel(profile, queue);
        let handle = handle.with_pool(num_blocks as usize, BLOCK_SIZE);
        let scheduler = Scheduler::new(SchedulerConfig {
            num_blocks,
            block_size: BLOCK_SIZE,
            max_num_seqs: config.max_num_seqs,
            max_batch_tokens: config.max_batch_tokens,
            prompts: model.prompts(),
            eos: model.eos(),
            prefix_cache: config.prefix_cache,
        });
        let parts = EngineParts {
            inbox,
            load: Arc::clone(handle.load()),
            scheduler,
            tokenizer,
            vocab,
            decoder_start: model.decoder_start(),
            observer: Box::new(metrics),
        };
        let adapter_bytes = usize::try_from(config.adapter_device_bytes).unwrap_or(usize::MAX);
        let memory = RunnerConfig { adapter_bytes, kv_dtype, num_blocks, block_size: BLOCK_SIZE };
        let runner = model.runner(memory)?;
        let handle = handle.with_fetch(runner.fetch());
        Ok((handle, Engine::spawn(parts, runner).map_err(LoadModelError::Thread)?))
    }

    /// The blocks that fit `bytes`, at least what the longest sequence needs.
    fn num_blocks(&self, bytes: u64) -> Result<u32, LoadModelError> {
        let block = self.model.block_bytes(BLOCK_SIZE, self.kv_dtype);
        let blocks = |rows: usize| rows.div_ceil(BLOCK_SIZE.get());
        let needed = match self.profile.context {
            ContextWindow::Apart { prompt_rows, new_tokens } => blocks(prompt_rows) + blocks(new_tokens),
            ContextWindow::Shared { rows } => blocks(rows),
        };
        let found = usize::try_from(bytes).unwrap_or(usize::MAX) / block;
        if found < needed {
            return Err(LoadModelError::KvMemory { found, needed, bytes: needed.saturating_mul(block) });
        }
        // Slots are numbered in 32 bits.
        Ok(found.min(u32::MAX as usize / BLOCK_SIZE.get()) as u32)
    }
}
