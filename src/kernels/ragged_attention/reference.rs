//! The plain truth about ragged attention, in f64, one score at a time.
#![forbid(unsafe_code)]

use super::{Attention, Keys};

/// A dense matrix whose row `r` starts at `r * stride + offset`.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The whole matrix.
    pub values: &'a [f32],
    /// Columns of the whole matrix.
    pub stride: usize,
    /// First column of this part.
    pub offset: usize,
}

impl Part<'_> {
    fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.stride + self.offset + column])
    }
}

/// Attention of the spans' rows. Returns `(rows, heads * dim)`.
pub fn attend(attention: &Attention<'_>, q: Part<'_>, k: Part<'_>, v: Part<'_>) -> Vec<f32> {
    let heads = attention.heads;
    let mut out = Vec::new();
    for span in attention.spans {
        for row in span.queries.clone() {
            for head in 0..heads.heads {
                let query =
                    (head * heads.dim..(head + 1) * heads.dim).map(|c| q.at(row, c)).collect::<Vec<_>>();
                let group = head / (heads.heads / heads.kv_heads) * heads.dim;
                let position = span.first_position + row - span.queries.start;
                let past = |key: usize| !span.causal || key <= position;
                let near = |key: usize| attention.window.is_none_or(|window| key + window > position);
                let visible = (0..span.context).filter(|&key| past(key) && near(key));
                let keys: Vec<usize> = visible.collect();
                let score = |&key: &usize| {
                    let at = row_of(&span.keys, key);
                    let dot: f64 = query.iter().enumerate().map(|(c, q)| q * k.at(at, group + c)).sum();
                    let bias = attention.bias.map_or(0.0, |bias| bias.row(head, position, key..key + 1)[0]);
                    let scaled = f64::from(attention.scale) * dot;
                    let capped =
                        attention.soft_cap.map(f64::from).map_or(scaled, |cap| cap * (scaled / cap).tanh());
                    capped + f64::from(bias)
                };
                let scores: Vec<f64> = keys.iter().map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for column in 0..heads.dim {
                    let values = keys.iter().map(|&key| v.at(row_of(&span.keys, key), group + column));
                    let sum: f64 = values.zip(&weights).map(|(value, weight)| value * weight).sum();
                    out.push(if total > 0.0 { (sum / total) as f32 } else { 0.0 });
                }
            }
        }
    }
    out
}

fn row_of(keys: &Keys<'_>, position: usize) -> usize {
    match keys {
        Keys::Rows { start } => start + position,
        Keys::Blocks { blocks, block_size } => {
            blocks[position / block_size].index() * block_size + position % block_size
        }
    }
}
