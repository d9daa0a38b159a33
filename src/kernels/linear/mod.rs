//! Frozen linear maps on packed weights.
