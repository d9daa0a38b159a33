//! Which sequences work in the next step.
