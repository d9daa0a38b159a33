//! What the runners share: adapters as slots, and tokens from rows of logits.

use candle_core::{DType, Device, Tensor};

use super::{RunnerConfig, RunnerError, StepOutput};
use crate::{
    adapter::{AdapterLease, AdapterWeights},
    kernels::{
        dept_embed::{AdapterSlot, LowRankSlot},
        ragged_attention::{Span, copy_blocks},
    },
    kv::BlockCopy,
    sampling::{Mask, Scratch},
    scheduler::{Decode, Sequences},
};

/// The adapters of a batch, each generation once, numbered as the row table names them.
#[derive(Debug, Default)]
pub(super) struct Slots<'a>(Vec<&'a AdapterLease>);

impl<'a> Slots<'a> {
    /// The slot of a generation.
    pub fn number(&mut self, lease: &'a AdapterLease) -> u32 {
        let known = self.0.iter().position(|held| held.same(lease));
        let slot = known.unwrap_or_else(|| {
            self.0.push(lease);
            self.0.len() - 1
        });
        slot as u32
    }

    /// The tensors, by slot.
    pub fn tensors(&self) -> Vec<AdapterSlot<'a>> {
        self.0.iter().map(|lease| tensors_of(lease.weights())).collect()
    }
}

fn tensors_of(weights: &AdapterWeights) -> AdapterSlot<'_> {
    let low_rank = weights.low_rank().map(|pair| LowRankSlot {
        a: pair.a().data(),
        b: pair.b().data(),
        rank: pair.rank(),
        scale: pair.scale(),
    });
    AdapterSlot { prompt: weights.prompt().data(), low_rank }
}

/// Memory that sampling works in.
#[derive(Debug, Default)]
pub(super) struct SampleMemory {
    row: Vec<f32>,
    scratch: Scratch,
}

/// Draws a token from each row of `logits` `(sequences, vocab)`, for the planned decodes that sample, in order. `eos` are
/// the tokens that may not come before `min_tokens`.
pub(super) fn sample(
    logits: &Tensor,
    decode: &[Decode],
    sequences: &mut Sequences,
    eos: &[u32],
    memory: &mut SampleMemory,
    output: &mut StepOutput,
) -> Result<(), RunnerError> {
    let vocab = logits.dim(1)?;
    let (storage, layout) = logits.storage_and_layout();
    let (candle_core::Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(candle_core::Error::msg("the logits of a CPU runner are contiguous on the CPU").into());
    };
    let rows = storage.as_slice::<f32>()?[start..end].chunks_exact(vocab);
    for (row, planned) in rows.zip(decode.iter().filter(|planned| planned.samples)) {
        let id = planned.sequence;
        let sequence = sequences.get_mut(id).ok_or(RunnerError::NoSequence(id))?;
        let banned = if sequence.must_go_on() { eos } else { &[] };
        memory.row.clear();
        memory.row.extend_from_slice(row);
        let mask = Mask { banned, allowed: None };
        let sampled = sequence.request.sampler.sample(&mut memory.row, mask, &mut memory.scratch);
        output.tokens.push((id, sampled));
    }
    Ok(())
}

/// Empty K/V slabs, one a decoder block. `(num_blocks * block_size, width)`
pub(super) fn slabs(config: RunnerConfig, layers: usize, width: usize) -> Result<Vec<Tensor>, RunnerError> {
    let shape = (config.num_blocks as usize * config.block_size.get(), width);
    // Zeroed pages cost no memory until a block is first used.
    let slab = |_| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    Ok((0..layers).map(slab).collect::<candle_core::Result<_>>()?)
}

/// Gives rows that are about to be written a place of their own, in every slab.
pub(super) fn copy_rows(
    slabs: &[Tensor],
    copies: &[BlockCopy],
    block_size: usize,
) -> Result<(), RunnerError> {
    if copies.is_empty() {
        return Ok(());
    }
    Ok(slabs.iter().try_for_each(|slab| copy_blocks(slab, copies, block_size))?)
}

/// The last row of every span whose decode samples, in order; `None` when none does. `(rows, d) -> (sequences, d)`
pub(super) fn last_rows(
    hidden: Tensor,
    spans: &[Span<'_>],
    decode: &[Decode],
) -> Result<Option<Tensor>, RunnerError> {
    let sampling = spans.iter().zip(decode).filter(|(_, planned)| planned.samples);
    let last: Vec<u32> = sampling.map(|(span, _)| span.queries.end as u32 - 1).collect();
    match last.len() {
        0 => Ok(None),
        count if count == hidden.dim(0)? => Ok(Some(hidden)),
        _ => Ok(Some(hidden.index_select(&Tensor::new(last, &Device::Cpu)?, 0)?)),
    }
}
