mod files;
mod gates;
mod keys;
mod quotas;
mod support;
