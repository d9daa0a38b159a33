//! The front doors: one set of use cases behind HTTP and gRPC.
