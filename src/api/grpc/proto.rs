//! What `proto/dept/v1` compiles to: messages, and the services' servers and clients.

tonic::include_proto!("dept.v1");

/// The protos and what they import, as server reflection tells them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dept.v1.bin"));
