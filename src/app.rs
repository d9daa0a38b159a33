//! Builds the parts, connects them, and drains them.
