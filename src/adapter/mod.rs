//! Adapters: what they are on disk, in memory and by name.
