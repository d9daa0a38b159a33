//! What the runners share: tokens from rows of logits, and K/V memory.

use candle_core::{DType, Device, Tensor};

use super::{RunnerConfig, RunnerError, StepOutput};
use crate::{
    grammar::Guide,
    kernels::{
        Place,
        best::best_tokens,
        ragged_attention::{copy_blocks, empty_slab},
    },
    kv::BlockCopy,
    sampling::{Mask, SampleError, Sampled, Scratch},
    scheduler::{Decode, NewSequence, Sequence, SequenceId, Sequences},
};

/// Memory that sampling works in.
#[derive(Debug)]
pub(super) struct SampleMemory {
    row: Vec<f32>,
    scratch: Scratch,
    /// Whether logits lie on a device, from where ids are read back rather than rows.
    away: bool,
}

impl SampleMemory {
    /// For logits made at `place`.
    pub fn new(place: &Place) -> Self {
        Self { row: Vec::new(), scratch: Scratch::default(), away: matches!(place, Place::Dense(_)) }
    }
}

/// What becomes of one row of logits.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// It scores the token behind decoder row so and so.
    Score(SequenceId, usize),
    /// A token is drawn from it.
    Sample(SequenceId),
}

/// Rows of logits that are made at a time: more would take memory and save nothing.
const LOGIT_ROWS: usize = 64;

/// Reads what the planned decodes want from `hidden` `(rows, d)`, which has their rows one behind the other: tokens are
/// scored, and drawn. `eos` are the tokens that may not come before `min_tokens`; `logits` makes `(some rows, vocab)` of
/// `(some rows, d)`.
pub(super) fn read_out(
    hidden: &Tensor,
    decode: &[Decode],
    logits: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
    (sequences, eos): (&mut Sequences, &[u32]),
    memory: &mut SampleMemory,
    output: &mut StepOutput,
) -> Result<(), RunnerError> {
    let (mut rows, mut readings) = (Vec::with_capacity(decode.len()), Vec::with_capacity(decode.len()));
    let mut first = 0;
    for planned in decode {
        let id = planned.sequence;
        for row in planned.scores.clone() {
            rows.push((first + row - planned.rows.start) as u32);
            readings.push(Reading::Score(id, row));
        }
        first += planned.rows.len();
        if planned.samples {
            rows.push(first as u32 - 1);
            readings.push(Reading::Sample(id));
        }
    }
    let all = hidden.dim(0)?;
    for (rows, readings) in rows.chunks(LOGIT_ROWS).zip(readings.chunks(LOGIT_ROWS)) {
        // As a rule every row decodes one sequence.
        let wanted = if rows.len() == all {
            hidden.clone()
        } else {
            hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)? // (some rows, d)
        };
        let logits = logits(&wanted)?; // (some rows, vocab)
        if memory.away {
            read_away(&logits, readings, (sequences, eos), memory, output)?;
        } else {
            read_rows(&logits, readings, (sequences, eos), memory, output)?;
        }
    }
    Ok(())
}

/// Reads rows of a device: ids where the best token is all that is wanted, the logits of the others.
fn read_away(
    logits: &Tensor,
    readings: &[Reading],
    (sequences, eos): (&mut Sequences, &[u32]),
    memory: &mut SampleMemory,
    output: &mut StepOutput,
) -> Result<(), RunnerError> {
    let best = |sequences: &Sequences, reading: &Reading| match reading {
        Reading::Score(..) => None,
        Reading::Sample(id) => sequences.get(*id).and_then(vocab_of_best),
    };
    let Some(vocab) = readings.iter().find_map(|reading| best(sequences, reading)) else {
        return read_rows(logits, readings, (sequences, eos), memory, output);
    };
    let tokens = best_tokens(logits, vocab)?;
    let (mut rest, mut others) = (Vec::new(), Vec::new());
    for (row, (&reading, token)) in (0u32..).zip(readings.iter().zip(tokens)) {
        match (reading, token) {
            // Without a best token the sampler says why.
            (Reading::Sample(id), Some(token)) if best(sequences, &reading) == Some(vocab) => {
                let sequence = sequences.get_mut(id).ok_or(RunnerError::NoSequence(id))?;
                output.tokens.push((id, Ok(sequence.request.sampler.take_best(token))));
            }
            _ => {
                rest.push(row);
                others.push(reading);
            }
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    let wanted = logits.index_select(&Tensor::new(rest, logits.device())?, 0)?; // (other rows, vocab)
    read_rows(&wanted, &others, (sequences, eos), memory, output)
}

/// The logits that count for a sequence whose next token is the best of them, whatever it is.
fn vocab_of_best(sequence: &Sequence) -> Option<usize> {
    let NewSequence { guide, sampler, .. } = &sequence.request;
    let free = guide.is_none() && !sequence.must_go_on() && sampler.wants_the_best();
    free.then(|| sampler.vocab())
}

fn read_rows(
    logits: &Tensor,
    readings: &[Reading],
    (sequences, eos): (&mut Sequences, &[u32]),
    memory: &mut SampleMemory,
    output: &mut StepOutput,
) -> Result<(), RunnerError> {
    let vocab = logits.dim(1)?;
    // Neither copies anything on the CPU.
    let logits = logits.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let (storage, layout) = logits.storage_and_layout();
    let (candle_core::Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(candle_core::Error::msg("logits are contiguous rows").into());
    };
    let rows = storage.as_slice::<f32>()?[start..end].chunks_exact(vocab);
    for (row, reading) in rows.zip(readings) {
        let (Reading::Score(id, _) | Reading::Sample(id)) = *reading;
        let sequence = sequences.get_mut(id).ok_or(RunnerError::NoSequence(id))?;
        if let Reading::Score(_, at) = *reading {
            let token = sequence.token_behind(at);
            output.scores.push((id, sequence.request.sampler.score(row, token, &mut memory.scratch)));
            continue;
        }
        memory.row.clear();
        memory.row.extend_from_slice(row);
        output.tokens.push((id, sample(sequence, eos, memory)));
    }
    Ok(())
}

/// Draws a token from the row in `memory`. The end may not come before `min_tokens`, unless its grammar leaves nothing else.
fn sample(sequence: &mut Sequence, eos: &[u32], memory: &mut SampleMemory) -> Result<Sampled, SampleError> {
    let must_go_on = sequence.must_go_on();
    let NewSequence { guide, sampler, .. } = &mut sequence.request;
    let banned = if must_go_on && guide.as_mut().is_none_or(Guide::has_more) { eos } else { &[] };
    // Who is stuck has an empty mask: the engine asks the guide why.
    let allowed = guide.as_mut().map(|guide| guide.mask().unwrap_or_default());
    sampler.sample(&mut memory.row, Mask { banned, allowed }, &mut memory.scratch)
}

/// Empty K/V slabs, one a decoder block. `(num_blocks * block_size, width)`
pub(super) fn slabs(
    place: &Place,
    config: RunnerConfig,
    layers: usize,
    width: usize,
) -> Result<Vec<Tensor>, RunnerError> {
    let shape = (config.num_blocks as usize * config.block_size.get(), width);
    let slab = |_| empty_slab(shape, config.kv_dtype.at(place), place.device());
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
