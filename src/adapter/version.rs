//! The content address of an adapter.
//!
//! SHA-256 over these bytes, in this order:
//!
//! 1. JSON without white space, keys sorted: `{"alpha":8.0,"d":768,"m":60,"method":"dept","r":30,"s":256,
//!    "task":"SEQ_2_SEQ_LM"}`; `alpha` is a decimal that reads back as the same f64; without a low-rank pair
//!    `alpha` and `s` are null, and `r` is 0 except in ADePT;
//! 2. one line feed;
//! 3. the prompt P `(m, d)`, then A `(s, r)`, then B `(r, d)`, each row-major, an element being four bytes of
//!    little-endian f32; what is absent takes no bytes; ADePT has A `(d, r)`, B `(r, d)`, a `(r)` and b `(d)`, where absent
//!    biases are zeros;
//! 4. the card as JSON without white space, keys sorted at every depth, absent keys left out; `{}` without a card.
//!
//! Lengths follow from the first part, so no two adapters share their bytes. What a file merely dresses up, such
//! as its format, a wider dtype, unused rows, the order of keys, or where in TOML a value stands, has no part in it.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    card::Card,
    manifest::{Manifest, Method, Task},
    tensor::Matrix,
    weights::AdapterWeights,
};
use crate::domain::Version;

/// The first part; its fields stand in the order of their names.
#[derive(Serialize)]
struct Shape {
    alpha: Option<f64>,
    d: usize,
    m: usize,
    method: Method,
    r: usize,
    s: Option<usize>,
    task: Task,
}

/// The content address of an adapter.
pub fn version(manifest: &Manifest, weights: &AdapterWeights, card: &Card) -> Version {
    let shape = Shape {
        alpha: manifest.alpha(),
        d: weights.hidden(),
        m: weights.prompt_length(),
        method: manifest.method,
        r: weights.rank(),
        s: weights.max_length(),
        task: manifest.task,
    };
    let mut hash = Sha256::new();
    hash.update(json(&shape));
    hash.update(b"\n");
    update(&mut hash, weights.prompt());
    weights.update().matrices().into_iter().for_each(|matrix| update(&mut hash, matrix));
    hash.update(json(card));
    Version::from_digest(hash.finalize().into())
}

/// Hashes a matrix through a small buffer: one call for each value would cost more than the hashing.
fn update(hash: &mut Sha256, matrix: &Matrix) {
    let mut buffer = Vec::with_capacity(4 * 1024);
    for values in matrix.data().chunks(1024) {
        buffer.clear();
        buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        hash.update(&buffer);
    }
}

/// JSON without white space and with sorted keys.
fn json(value: &impl Serialize) -> String {
    let mut value =
        serde_json::to_value(value).expect("cards and shapes have string keys and finite numbers");
    sort(&mut value);
    value.to_string()
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}
