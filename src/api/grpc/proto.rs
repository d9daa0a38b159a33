//! What `proto/dept/v1` compiles to: messages, and the services' servers and clients.
#![expect(clippy::allow_attributes, reason = "what the generator writes is not ours to word")]

tonic::include_proto!("dept.v1");

/// The protos and what they import, as server reflection tells them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dept.v1.bin"));
