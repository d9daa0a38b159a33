//! Packing a map some of its outputs at a time: what some were read into can be gone before the next ones are read.

use half::{bf16, f16};

use super::activation::Epilogue;
use super::blocks::{PackedSteps, SPAN, Step};
use super::float::{Float, FloatStep};
use super::memory::Room;
use super::nibbles::NibbleStep;
use super::pack::{BLOCK, GROUP, I8Columns, I8Line, LANES, LINES, Order, Packed, PackedFloats, PackedI8};
use super::weights::{ActivationBits, LinearPart, LinearShape, LinearWeights, check_shape};
use super::{ComputePool, Linear, LinearError};

/// A map whose outputs come in order, a part at a time.
#[derive(Debug)]
pub struct Packing {
    /// Of all parts.
    shape: LinearShape,
    epilogue: Epilogue,
    /// As the first part's recipe wants it.
    room: Option<Rooms>,
    bias: Vec<[f32; BLOCK]>,
    parts: usize,
    /// Outputs that are there.
    rows: usize,
}

#[derive(Debug)]
enum Rooms {
    F32(Room<FloatStep<f32>>),
    F16(Room<FloatStep<f16>>),
    Bf16(Room<FloatStep<bf16>>),
    I8(Room<I8Line>, Vec<I8Columns>, ActivationBits),
    Blocks(Room<Step>, ActivationBits),
    Nibbles(Room<NibbleStep>, ActivationBits),
}

/// Where outputs from `first` on go, in blocks of `block_len` elements.
#[derive(Clone, Copy)]
struct Places {
    order: Order,
    n: usize,
    first: usize,
    block_len: usize,
}

impl Places {
    /// The stream of an output's block, behind which others follow, the block and its place there.
    fn of<T>(self, elements: &mut [T], row: usize) -> (&mut [T], usize, usize) {
        let (block, column) = self.order.place(self.first + row, self.n);
        (&mut elements[block * self.block_len..], block, column)
    }
}

impl Packing {
    /// A map of `shape`, the outputs of all of its parts before a gate, that ends in `epilogue`. Takes no memory before its first
    /// part is there: a shape is only a claim until then.
    ///
    /// # Errors
    /// When a side is zero or `k` exceeds 131071, where 32-bit sums could overflow.
    pub fn new(shape: LinearShape, epilogue: Epilogue) -> Result<Packing, LinearError> {
        check_shape(shape)?;
        Ok(Packing { shape, epilogue, room: None, bias: Vec::new(), parts: 0, rows: 0 })
    }

    /// Packs the next outputs. Every output is bit for bit what it would be in any other company.
    ///
    /// # Errors
    /// When a length does not fit the part's shape, a number is not finite, outputs are too many or belong to a gate and to what it
    /// gates, or the part differs from those before it in `k` or in its weight format.
    pub fn push(&mut self, part: LinearPart) -> Result<(), LinearError> {
        part.check()?;
        let (index, LinearShape { n, k }) = (self.parts, part.shape);
        if k != self.shape.k {
            return Err(LinearError::MixedInputs { part: index, expected: self.shape.k, got: k });
        }
        let rows = self.rows.saturating_add(n);
        if rows > self.shape.n {
            return Err(LinearError::Length { what: "outputs", expected: self.shape.n, got: rows });
        }
        self.check_gate(rows)?;
        let order = self.epilogue.order();
        let blocks = order.blocks(self.shape.n);
        self.bias.resize(blocks, [0.0; BLOCK]);
        let room = self.room.get_or_insert_with(|| Rooms::of(&part.weights, blocks, k));
        let block_len = room.len() / blocks;
        let places = Places { order, n: self.shape.n, first: self.rows, block_len };
        room.put(&part.weights, k, places).ok_or(LinearError::MixedRecipes { part: index })?;
        for (row, &bias) in part.bias.iter().flatten().enumerate() {
            let (block, column) = order.place(self.rows + row, self.shape.n);
            self.bias[block][column] = bias;
        }
        (self.parts, self.rows) = (index + 1, rows);
        Ok(())
    }

    /// Whether the outputs up to `rows` are of a gate or of what it gates, not of both.
    fn check_gate(&self, rows: usize) -> Result<(), LinearError> {
        let (n, half) = (self.shape.n, self.shape.n / 2);
        let gated = matches!(self.epilogue, Epilogue::Gated(_));
        if gated && self.rows < n - half && rows > half {
            let gate = if self.rows == 0 { rows } else { self.rows };
            return Err(LinearError::MixedOutputs { gate, up: n - gate });
        }
        Ok(())
    }

    /// The map, to be computed on `pool` with this machine's fastest kernels.
    ///
    /// # Errors
    /// When outputs are missing.
    pub fn finish(self, pool: ComputePool) -> Result<Linear, LinearError> {
        let Packing { shape, epilogue, room, bias, rows, .. } = self;
        let Some(weights) = room.filter(|_| rows == shape.n) else {
            return Err(LinearError::Length { what: "outputs", expected: shape.n, got: rows });
        };
        let packed = match weights {
            Rooms::F32(room) => Packed::F32(PackedFloats { steps: room.done(), bias }),
            Rooms::F16(room) => Packed::F16(PackedFloats { steps: room.done(), bias }),
            Rooms::Bf16(room) => Packed::Bf16(PackedFloats { steps: room.done(), bias }),
            Rooms::I8(room, mut columns, activations) => {
                columns.iter_mut().zip(bias).for_each(|(columns, bias)| columns.bias = bias);
                Packed::I8(PackedI8 { lines: room.done(), columns, activations })
            }
            Rooms::Blocks(room, activations) => {
                Packed::Blocks(PackedSteps { steps: room.done(), bias, activations })
            }
            Rooms::Nibbles(room, activations) => {
                Packed::Nibbles(PackedSteps { steps: room.done(), bias, activations })
            }
        };
        Ok(Linear::of(packed, shape, epilogue, pool))
    }
}

impl Rooms {
    /// Room for `blocks` blocks of `k` inputs in the recipe of `weights`.
    fn of(weights: &LinearWeights, blocks: usize, k: usize) -> Rooms {
        let steps = blocks * k.div_ceil(SPAN);
        match *weights {
            LinearWeights::F32 { .. } => Rooms::F32(Room::zeroed(blocks * k)),
            LinearWeights::F16 { .. } => Rooms::F16(Room::zeroed(blocks * k)),
            LinearWeights::Bf16 { .. } => Rooms::Bf16(Room::zeroed(blocks * k)),
            LinearWeights::I8 { activations, .. } => {
                let lines = Room::zeroed(blocks * k.div_ceil(GROUP) * LINES);
                let columns = I8Columns { correction: [0; BLOCK], scale: [0.0; BLOCK], bias: [0.0; BLOCK] };
                Rooms::I8(lines, vec![columns; blocks], activations)
            }
            LinearWeights::Blocks { activations, .. } => {
                Rooms::Blocks(Room::filled(steps, Step::EMPTY), activations)
            }
            LinearWeights::Nibbles { activations, .. } => Rooms::Nibbles(Room::zeroed(steps), activations),
        }
    }

    /// Elements of all blocks.
    fn len(&mut self) -> usize {
        match self {
            Rooms::F32(steps) => steps.numbers().len(),
            Rooms::F16(steps) => steps.numbers().len(),
            Rooms::Bf16(steps) => steps.numbers().len(),
            Rooms::I8(lines, ..) => lines.numbers().len(),
            Rooms::Blocks(steps, _) => steps.numbers().len(),
            Rooms::Nibbles(steps, _) => steps.numbers().len(),
        }
    }

    /// Puts a part's weights into their places; `None` where they are of another recipe.
    fn put(&mut self, weights: &LinearWeights, k: usize, places: Places) -> Option<()> {
        match (self, weights) {
            (Rooms::F32(steps), LinearWeights::F32 { values }) => {
                put_floats(steps.numbers(), values, k, places);
            }
            (Rooms::F16(steps), LinearWeights::F16 { values }) => {
                put_floats(steps.numbers(), values, k, places);
            }
            (Rooms::Bf16(steps), LinearWeights::Bf16 { values }) => {
                put_floats(steps.numbers(), values, k, places);
            }
            (Rooms::I8(lines, columns, expected), LinearWeights::I8 { values, scales, activations })
                if activations == expected =>
            {
                put_i8((lines.numbers(), columns), (values, scales), k, places)
            }
            (Rooms::Blocks(steps, expected), LinearWeights::Blocks { values, scales, activations })
                if activations == expected =>
            {
                put_blocks(steps.numbers(), (values, scales), k, places);
            }
            (
                Rooms::Nibbles(steps, expected),
                LinearWeights::Nibbles { levels, scales, offsets, activations },
            ) if activations == expected => {
                put_nibbles(steps.numbers(), (levels, scales, offsets), k, places);
            }
            _ => return None,
        }
        Some(())
    }
}

/// `values`: (outputs, k)
fn put_floats<F: Float>(steps: &mut [FloatStep<F>], values: &[F], k: usize, places: Places) {
    for (row, weights) in values.chunks_exact(k).enumerate() {
        let (steps, _, column) = places.of(steps, row);
        let (vector, lane) = (column / LANES, column % LANES);
        steps.iter_mut().zip(weights).for_each(|(step, &weight)| step.0[vector][lane] = weight);
    }
}

/// `values`: (outputs, k), `scales`: (outputs)
fn put_i8(
    (lines, columns): (&mut [I8Line], &mut [I8Columns]),
    (values, scales): (&[i8], &[f32]),
    k: usize,
    places: Places,
) {
    for (row, (weights, &scale)) in values.chunks_exact(k).zip(scales).enumerate() {
        let (stream, block, column) = places.of(lines, row);
        let (line, lane) = (column / LANES, column % LANES);
        for (step, group) in weights.chunks(GROUP).enumerate() {
            stream[step * LINES + line].0[lane * GROUP..][..group.len()].copy_from_slice(group);
        }
        columns[block].scale[column] = scale;
        columns[block].correction[column] = -128 * weights.iter().map(|&w| i32::from(w)).sum::<i32>();
    }
}

/// `values`: (outputs, k), `scales`: (outputs, k / 32, rounded up)
fn put_blocks(steps: &mut [Step], (values, scales): (&[i8], &[f16]), k: usize, places: Places) {
    for (row, (weights, scales)) in
        values.chunks_exact(k).zip(scales.chunks_exact(places.block_len)).enumerate()
    {
        let (steps, _, column) = places.of(steps, row);
        for ((step, weights), &scale) in steps.iter_mut().zip(weights.chunks(SPAN)).zip(scales) {
            step.put(column, weights);
            step.scales[column] = scale;
        }
    }
}

/// `levels`: (outputs, k), `scales` and `offsets`: (outputs, k / 32, rounded up)
fn put_nibbles(
    steps: &mut [NibbleStep],
    (levels, scales, offsets): (&[u8], &[f16], &[f16]),
    k: usize,
    places: Places,
) {
    let numbers = scales.chunks_exact(places.block_len).zip(offsets.chunks_exact(places.block_len));
    for (row, (levels, (scales, offsets))) in levels.chunks_exact(k).zip(numbers).enumerate() {
        let (steps, _, column) = places.of(steps, row);
        let numbers = scales.iter().zip(offsets);
        for ((step, levels), (&scale, &offset)) in steps.iter_mut().zip(levels.chunks(SPAN)).zip(numbers) {
            step.put(column, levels);
            (step.scales[column], step.offsets[column]) = (scale, offset);
        }
    }
}
