//! One file per subcommand.

pub mod adapter;
