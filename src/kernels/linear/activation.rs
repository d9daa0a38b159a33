//! What a linear map does to its outputs on their way out: nothing, an activation, or a gate.
//!
//! The functions are built from single IEEE operations, so that each instruction set vectorises them and all give the same
//! bits.

use std::f32::consts::LOG2_E;

use super::pack::{BLOCK, Order};
use super::quantise::ROUND;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)`: T5's first version.
    Relu,
    /// GELU by its tanh formula ("gelu_new", "gelu_pytorch_tanh"): T5 1.1, GPT-2, Gemma.
    GeluTanh,
    /// `x * sigmoid(x)`: Llama, Qwen.
    Silu,
}

/// The last part of a linear map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Outputs as they are.
    Plain,
    /// Outputs through an activation.
    Activated(Activation),
    /// `activation(gate) * up`: the first half of a block's outputs gates the second.
    Gated(Activation),
}

impl Epilogue {
    /// Whether so many maps can be one that ends in it.
    pub(crate) fn takes(self, parts: usize) -> bool {
        match self {
            Epilogue::Plain => parts > 0,
            Epilogue::Activated(_) => parts == 1,
            Epilogue::Gated(_) => parts == 2,
        }
    }

    /// The order in which weights are packed for it.
    pub(super) fn order(self) -> Order {
        match self {
            Epilogue::Plain | Epilogue::Activated(_) => Order::Rows,
            Epilogue::Gated(_) => Order::Halves,
        }
    }

    /// Outputs that a block gives.
    pub(super) fn block_outputs(self) -> usize {
        match self {
            Epilogue::Plain | Epilogue::Activated(_) => BLOCK,
            Epilogue::Gated(_) => BLOCK / 2,
        }
    }
}

/// Applies an activation in place. Inlined into a function per instruction set.
#[inline(always)]
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Relu => values.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
        Activation::GeluTanh => values.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
        Activation::Silu => values.iter_mut().for_each(|x| *x = silu(*x)),
    }
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, which is x times the sigmoid of twice tanh's argument.
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    /// `2 * sqrt(2 / pi)`
    const LINEAR: f32 = 1.595_769_2;
    /// `2 * sqrt(2 / pi) * 0.044715`
    const CUBIC: f32 = 0.071_354_814;
    x / (1.0 + exp(-(x * (LINEAR + CUBIC * (x * x)))))
}

/// `x * sigmoid(x)`
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// e^x within 2 units in the last place, for x in -87..88; beyond, the value at the bound.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// ln 2 in two parts, of which the first times any exponent is exact.
    const LN_2: (f32, f32) = (355.0 / 512.0, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 88.0);
    // e^x = 2^power * e^rest with |rest| <= ln 2 / 2, where the series' first left out term is below 6e-9.
    let rounded = x * LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = x - power * LN_2.0 - power * LN_2.1;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + coefficient;
    }
    let exponent = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127);
    sum * f32::from_bits((exponent as u32) << 23)
}
