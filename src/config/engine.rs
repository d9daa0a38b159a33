use std::{path::PathBuf, time::Duration};

use super::{ConfigError, CpuIsa, Device, Dtype, EngineArgs, KvCacheDtype, Location, ModelSource, Places};

/// The model that ships with the server.
pub(super) const EMBEDDED_MODEL: &str = "models/flan-t5-small-en";

/// The adapters that ship with the server.
const EMBEDDED_ADAPTERS: &str = "adapters";

/// A model, its adapters and its engine's limits, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Where the model comes from.
    pub model: ModelSource,
    /// The model's name on the wire.
    pub model_name: String,
    /// Where adapters are, a folder that exists or a bucket; `None` serves the bare backbone.
    pub adapters: Option<Location>,
    /// How soon a change there is seen at the latest.
    pub adapters_interval: Duration,
    /// Memory for adapters, in bytes.
    pub adapter_host_bytes: u64,
    /// Where the model computes.
    pub device: Device,
    /// Whether a GPU's answers are the same to the bit whatever runs beside.
    pub batch_invariant: bool,
    /// Memory of a GPU for adapters, in bytes.
    pub adapter_device_bytes: u64,
    /// How the weights are held.
    pub dtype: Dtype,
    /// The folder in which packed weights are kept for the next start; `None` packs them at every start.
    pub weights_cache: Option<PathBuf>,
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// The instruction set of linear maps on the CPU.
    pub cpu_isa: CpuIsa,
    /// Most rows of a prompt and most tokens of an answer, at least 1.
    pub max_model_len: usize,
    /// Most sequences in one step, at least 1.
    pub max_num_seqs: usize,
    /// Most rows in one step, at least 1.
    pub max_batch_tokens: usize,
    /// Memory for keys and values, in bytes.
    pub kv_cache_bytes: u64,
    /// How keys and values are kept.
    pub kv_cache_dtype: KvCacheDtype,
    /// Whether K/V rows that are in memory already are used again.
    pub prefix_cache: bool,
    /// Most sequences that wait, at least 1.
    pub queue_requests: usize,
    /// Most prompt tokens and tokens to generate that wait, at least 1.
    pub queue_tokens: usize,
}

impl EngineConfig {
    /// Checks the flags and looks up what they leave open.
    ///
    /// # Errors
    /// What is not there.
    pub fn new(args: EngineArgs, places: &Places) -> Result<Self, ConfigError> {
        let model = match args.model {
            Some(named) => named.parse()?,
            None => embedded_model(places)?,
        };
        let adapters = match args.adapters {
            Some(place) => {
                let place: Location = place.parse()?;
                if place.folder().is_some_and(|folder| !folder.is_dir()) {
                    return Err(ConfigError::AdaptersNotFound(place));
                }
                Some(place)
            }
            None => places.folder(EMBEDDED_ADAPTERS).map(Location::Folder),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            model_name: args.model_name.unwrap_or_else(|| model.default_name()),
            model,
            adapters,
            adapters_interval: args.adapters_interval,
            adapter_host_bytes: args.adapter_host_bytes,
            device: args.device,
            batch_invariant: args.batch_invariant,
            adapter_device_bytes: args.adapter_device_bytes,
            dtype: args.dtype,
            weights_cache: match args.weights_cache {
                Some(shelf) => shelf.folder(),
                None => places.cache().map(|cache| cache.join("weights")),
            },
            threads: if args.threads == 0 { cores() } else { args.threads },
            cpu_isa: args.cpu_isa,
            max_model_len: args.max_model_len,
            max_num_seqs: args.max_num_seqs,
            max_batch_tokens: args.max_batch_tokens,
            kv_cache_bytes: args.kv_cache_bytes,
            kv_cache_dtype: args.kv_cache_dtype,
            prefix_cache: args.prefix_cache,
            queue_requests: args.queue_requests,
            queue_tokens: args.queue_tokens,
        })
    }
}

/// The model that ships with the server.
fn embedded_model(places: &Places) -> Result<ModelSource, ConfigError> {
    let looked_in = places.describe();
    places.folder(EMBEDDED_MODEL).map(ModelSource::Folder).ok_or(ConfigError::NoModel { looked_in })
}
