//! The building blocks that backbones share.
