//! The plain truth about the embedding step, one number at a time.

use super::{AdapterSlot, DeltaRow, EmbeddingTable, Row, RowTable};

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
                    out.push(value + delta.map_or(0.0, |delta| update(slots, delta, column, hidden)));
                }
            }
        }
    }
    out
}

/// `scale * A[row] . B[:, column]`
fn update(slots: &[AdapterSlot<'_>], delta: DeltaRow, column: usize, hidden: usize) -> f32 {
    let Some(pair) = slots[delta.slot as usize].low_rank else { return 0.0 };
    let row = delta.index as usize * pair.rank;
    let dot: f32 = (0..pair.rank).map(|j| pair.a[row + j] * pair.b[j * hidden + column]).sum();
    pair.scale * dot
}
