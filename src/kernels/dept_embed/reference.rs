//! The plain truth about the embedding step, one number at a time.

use super::{AdapterSlot, AdeptSlot, DeltaRow, EmbeddingTable, LowRankSlot, Row, RowTable, UpdateSlot};

/// Embeds a checked batch. Returns `(rows, d)`.
pub fn dept_embed(table: &EmbeddingTable, slots: &[AdapterSlot<'_>], rows: &RowTable) -> Vec<f32> {
    let hidden = table.hidden();
    let mut out = Vec::with_capacity(rows.len() * hidden);
    for row in rows.iter() {
        match row {
            Row::Prompt { slot, index } => {
                let start = index as usize * hidden;
                out.extend_from_slice(&slots[slot as usize].prompt[start..start + hidden]);
            }
            Row::Token { token, delta } => {
                let mut embedding = vec![0.0; hidden];
                table.copy_row(token as usize, &mut embedding);
                for (column, value) in embedding.iter().enumerate() {
                    out.push(value + delta.map_or(0.0, |delta| update(slots, delta, &embedding, column)));
                }
            }
        }
    }
    out
}

/// What `delta` adds to `column` of the token's `embedding` `(d)`.
fn update(slots: &[AdapterSlot<'_>], delta: DeltaRow, embedding: &[f32], column: usize) -> f32 {
    match slots[delta.slot as usize].update {
        UpdateSlot::None => 0.0,
        UpdateSlot::LowRank(pair) => low_rank(pair, delta.index as usize, column, embedding.len()),
        UpdateSlot::Adept(network) => adept(network, embedding, column),
    }
}

/// `scale * A[row] . B[:, column]`
fn low_rank(pair: LowRankSlot<'_>, row: usize, column: usize, hidden: usize) -> f32 {
    let row = row * pair.rank;
    let dot: f32 = (0..pair.rank).map(|j| pair.a[row + j] * pair.b[j * hidden + column]).sum();
    pair.scale * dot
}

/// `ReLU(e . A + a) . B[:, column] + b[column]`
fn adept(network: AdeptSlot<'_>, embedding: &[f32], column: usize) -> f32 {
    let (rank, hidden) = (network.bias_a.len(), embedding.len());
    let unit = |j: usize| {
        let dot: f32 = (0..hidden).map(|i| embedding[i] * network.a[i * rank + j]).sum();
        (dot + network.bias_a[j]).max(0.0)
    };
    let dot: f32 = (0..rank).map(|j| unit(j) * network.b[j * hidden + column]).sum();
    dot + network.bias_b[column]
}
