//! Executes a step plan on a backbone.
