mod data;
mod golden;
mod pieces;
mod runs;
mod support;
