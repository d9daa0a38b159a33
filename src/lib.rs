#![doc = include_str!("ARCHITECTURE.md")]

pub mod adapter;
pub mod api;
pub mod app;
pub mod backbones;
pub mod cli;
pub mod config;
#[cfg(test)]
mod contract;
pub mod domain;
pub mod engine;
pub mod evaluation;
pub mod grammar;
pub mod kernels;
pub mod kv;
pub mod layers;
pub mod runner;
pub mod sampling;
pub mod scheduler;
pub mod telemetry;
pub mod tenancy;
pub mod tokenizer;
pub mod training;
