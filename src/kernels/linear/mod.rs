//! Frozen linear maps on packed weights.
//!
//! A weight format fixes one arithmetic recipe, and every kernel at every batch shape and thread count follows it to the
//! bit, so a row's result never depends on its neighbours:
//!
//! - `I8`: activations are quantised by row, products are summed exactly as integers, and an output is
//!   `sum as f32 * activation_scale * weight_scale + bias`, rounded at each of these steps.
//! - `Blocks`: activations are quantised in blocks of 32 inputs, products are summed exactly as integers in the same blocks, and
//!   each block's sum times both scales is added in order by a fused multiply-add; then the bias is added.
//! - `Nibbles`: as `Blocks` with weights of 4 bits, and each block's sum of activations times its offset is added too.
//! - `F32`, `F16`, `Bf16`: one fused multiply-add in f32 per input, in order, from zero; then the bias is added.
//!
//! The activations of `Blocks` and `Nibbles` keep 8 bits, or 15 where that is too few: in logits, whose order is the answer.
//!
//! An activation or a gate can be part of the map: it costs a tenth of the map, where separate ops cost several of them.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backward;
mod blocks;
mod dense;
mod finish;
mod float;
mod forward;
mod gate;
mod isa;
mod kept;
mod memory;
mod nibbles;
mod op;
mod pack;
mod packing;
mod portable;
mod quantise;
#[cfg(test)]
mod reference;
mod rows;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

pub use self::activation::{Activation, Epilogue};
use self::backward::Backward;
pub use self::dense::{Dense, LinearMap};
pub use self::gate::Gate;
pub use self::isa::Isa;
use self::isa::Kernels;
pub use self::kept::{LAYOUT, PackedBytes, PackedFormat};
use self::pack::{BLOCK, Packed};
pub use self::packing::Packing;
use self::weights::MAX_K;
pub use self::weights::{ActivationBits, LinearPart, LinearShape, LinearWeights};
use super::pool::ComputePool;

/// Why a linear map could not be built or called.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinearError {
    /// A side is zero, or `k` is so large that integer sums could overflow.
    #[error("a linear map needs n >= 1 and 1 <= k <= {MAX_K}, got n = {n}, k = {k}")]
    Shape {
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
    },
    /// A slice's length does not fit the shape.
    #[error("expected {expected} {what}, got {got}")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// Elements that the shape asks for.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// An infinity or a NaN among the weights, scales or biases.
    #[error("{what}[{index}] is {value}; the file may be damaged or of another type than declared")]
    NotFinite {
        /// What the slice holds.
        what: &'static str,
        /// Where the value stands, among the outputs that came together.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A weight of 4 bits that has more.
    #[error("weights[{index}] is {level}; a weight of 4 bits is 0 to 15")]
    Level {
        /// Where the weight stands, among the outputs that came together.
        index: usize,
        /// The weight.
        level: u8,
    },
    /// Too few parts or too many.
    #[error("a linear map with the ending {epilogue:?} can't be made of {parts} parts")]
    Parts {
        /// What the outputs were to go through.
        epilogue: Epilogue,
        /// Parts given.
        parts: usize,
    },
    /// A part with another number of inputs.
    #[error("part {part} has {got} inputs, the parts before it {expected}")]
    MixedInputs {
        /// The part's position.
        part: usize,
        /// Inputs of the first part.
        expected: usize,
        /// Inputs of this part.
        got: usize,
    },
    /// A gate and the map that it gates with different numbers of outputs.
    #[error("the gate has {gate} outputs, the map that it gates {up}")]
    MixedOutputs {
        /// Outputs of the gate.
        gate: usize,
        /// Outputs of the gated map.
        up: usize,
    },
    /// A part with another weight format or other activation bits.
    #[error("part {part} has another weight format than the parts before it; convert them to one")]
    MixedRecipes {
        /// The part's position.
        part: usize,
    },
    /// The machine lacks an instruction set that was asked for.
    #[error("this machine lacks the instructions for {0:?}")]
    Unavailable(Isa),
    /// A device does not take the weights.
    #[error("the device refused the weights: {0}")]
    Device(String),
}

/// A frozen linear map `y = x W^T + b` whose weights are packed for this machine. A clone shares the weights.
#[derive(Clone, Debug)]
pub struct Linear {
    packed: Arc<Packed>,
    /// Outputs after the epilogue, and inputs.
    shape: LinearShape,
    epilogue: Epilogue,
    kernels: Kernels,
    pool: ComputePool,
    /// The way back to the input, where gradients are wanted.
    backward: Option<Arc<Backward>>,
}

impl Linear {
    /// Packs `weights` (n, k) and `bias` (n), to be computed on `pool` with this machine's fastest kernels.
    ///
    /// # Errors
    /// When a length does not fit `shape`, a number is not finite, or `k` exceeds 131071, where 32-bit sums could overflow.
    pub fn new(
        shape: LinearShape,
        weights: LinearWeights,
        bias: Option<Vec<f32>>,
        pool: ComputePool,
    ) -> Result<Linear, LinearError> {
        Linear::concat(vec![LinearPart { shape, weights, bias }], pool)
    }

    /// Packs several maps of the same input as one whose outputs follow each other: q, k and v.
    ///
    /// Every output is bit for bit what its part alone would give.
    ///
    /// # Errors
    /// As [`Linear::new`], and when the parts differ in `k` or in their weight format.
    pub fn concat(parts: Vec<LinearPart>, pool: ComputePool) -> Result<Linear, LinearError> {
        Linear::pack(parts, Epilogue::Plain, pool)
    }

    /// The same with an epilogue: one map whose outputs go through an activation, or a gate and what it gates, with the outputs
    /// of one of them.
    ///
    /// # Errors
    /// As [`Linear::concat`], and when the parts are not those that the epilogue is for.
    pub fn pack(
        parts: Vec<LinearPart>,
        epilogue: Epilogue,
        pool: ComputePool,
    ) -> Result<Linear, LinearError> {
        // Room is made for all of them when the first is there.
        parts.iter().try_for_each(LinearPart::check)?;
        let mut packing = Packing::new(LinearPart::shape_of(&parts, epilogue)?, epilogue)?;
        parts.into_iter().try_for_each(|part| packing.push(part))?;
        packing.finish(pool)
    }

    /// A map whose weights are packed; `shape` is that of all its parts.
    fn of(packed: Packed, shape: LinearShape, epilogue: Epilogue, pool: ComputePool) -> Linear {
        let shape = LinearShape { n: shape.n * epilogue.block_outputs() / BLOCK, ..shape };
        let kernels = Kernels::fastest();
        Linear { packed: Arc::new(packed), shape, epilogue, kernels, pool, backward: None }
    }

    /// The same map computed with another instruction set, for tests and measurements.
    ///
    /// # Errors
    /// When this machine lacks it.
    pub fn with_isa(self, isa: Isa) -> Result<Linear, LinearError> {
        let kernels = Kernels::of(isa).ok_or(LinearError::Unavailable(isa))?;
        Ok(Linear { kernels, ..self })
    }

    /// The number of outputs and inputs.
    pub fn shape(&self) -> LinearShape {
        self.shape
    }

    /// The instruction set whose kernels are used.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }
}
