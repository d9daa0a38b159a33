mod adapters;
mod answers;
mod calls;
mod health;
mod kit;
mod refusals;
mod tenants;
mod traces;
