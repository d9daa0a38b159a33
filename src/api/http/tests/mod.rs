mod answers;
mod bad_input;
mod kit;
mod routes;
mod streaming;
mod tenants;
mod troubles;
mod wire;
