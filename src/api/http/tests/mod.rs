mod answers;
mod bad_input;
mod classify;
mod kit;
mod routes;
mod streaming;
mod troubles;
