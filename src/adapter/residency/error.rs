use crate::domain::AdapterName;

/// Why an adapter is not in memory.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// It is larger than all the memory for adapters.
    #[error(
        "adapter '{name}' takes {bytes} bytes and --adapter-host-bytes is {budget}: start the server with more"
    )]
    TooLarge {
        /// The adapter.
        name: AdapterName,
        /// What it takes.
        bytes: u64,
        /// All there is.
        budget: u64,
    },
    /// Too many wait for room.
    #[error(
        "{0} adapters wait for memory, which those in use fill: retry later, or raise --adapter-host-bytes"
    )]
    Crowded(usize),
    /// Too much is pinned.
    #[error(
        "pinning '{name}' would pin {bytes} bytes, and of --adapter-host-bytes at most {most} are pinned: unpin others, \
         or raise it"
    )]
    PinsFull {
        /// The adapter.
        name: AdapterName,
        /// What would be pinned with it.
        bytes: u64,
        /// The most.
        most: u64,
    },
    /// Its files can't be had or are not sound.
    #[error("adapter '{name}' can't be loaded: {reason}")]
    Failed {
        /// The adapter.
        name: AdapterName,
        /// What is wrong.
        reason: String,
    },
}
