//! Linear maps as plain matrices on a candle device, whose library multiplies them: how a GPU computes.

use candle_core::{Device, Result, Tensor};

use super::{Activation, Linear, LinearError, LinearPart, LinearShape, LinearWeights, activation::Epilogue};
use crate::kernels::{DensePlace, matmul::fixed_matmul};

/// A linear map where its model computes.
#[derive(Clone, Debug)]
pub enum LinearMap {
    /// Packed for this machine's CPU.
    Packed(Linear),
    /// On a device.
    Dense(Dense),
}

impl LinearMap {
    /// Applies the map. `(rows, k) -> (rows, n)`
    ///
    /// # Errors
    /// When `x` is not contiguous, not where the map is, or its last dimension is not `k`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(linear) => linear.forward(x),
            Self::Dense(dense) => dense.forward(x),
        }
    }
}

impl LinearMap {
    /// Adds what the map makes of `x` to the residual stream. `(rows, k), (rows, n) -> (rows, n)`
    ///
    /// # Errors
    /// As [`LinearMap::forward`], and when `hidden` has another shape.
    pub fn forward_onto(&self, x: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(linear) => linear.forward_onto(x, hidden),
            // The stream is in f32 wherever a model computes.
            Self::Dense(dense) => hidden + dense.forward(x)?.to_dtype(hidden.dtype())?,
        }
    }
}

impl From<Linear> for LinearMap {
    fn from(linear: Linear) -> Self {
        Self::Packed(linear)
    }
}

/// A frozen map `y = x W^T + b` in bf16 or f32. Unless its place is invariant, the device's library picks the order of its sums
/// by shape. A clone shares the weights.
#[derive(Clone, Debug)]
pub struct Dense {
    /// As checkpoints store it. `(n, k)`
    weight: Tensor,
    /// `(n)`
    bias: Option<Tensor>,
    epilogue: Epilogue,
    /// Whether its sums have one order at every shape.
    invariant: bool,
}

impl Dense {
    /// Brings several maps of the same input to a place, as one whose outputs follow each other and go through `epilogue`: see
    /// [`Linear::pack`]. Weights of few bits are widened.
    ///
    /// # Errors
    /// As [`Linear::pack`], and when the device has no memory.
    pub fn pack(
        parts: Vec<LinearPart>,
        epilogue: Epilogue,
        place: &DensePlace,
    ) -> std::result::Result<Self, LinearError> {
        let LinearPart { shape: LinearShape { n, k }, weights, bias } = LinearPart::stack(parts, epilogue)?;
        let there = |on_host: Result<Tensor>| {
            let there = on_host.and_then(|tensor| tensor.to_dtype(place.dtype)?.to_device(&place.device));
            there.map_err(|error| LinearError::Device(error.to_string()))
        };
        Ok(Self {
            weight: there(on_host(weights, (n, k)))?,
            bias: bias.map(|bias| there(Tensor::new(bias, &Device::Cpu))).transpose()?,
            epilogue,
            invariant: place.invariant,
        })
    }

    /// Applies the map to rows of any type, rounded to the map's own. `(rows, k) -> (rows, n)`
    ///
    /// # Errors
    /// When `x` is not on the map's device or its last dimension is not `k`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?;
        let mut y = match self.invariant {
            true => fixed_matmul(&x, &self.weight)?,
            false => x.matmul(&self.weight.t()?)?,
        }; // (rows, n)
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        match self.epilogue {
            Epilogue::Plain => Ok(y),
            Epilogue::Activated(activation) => activate(activation, &y),
            Epilogue::Gated(activation) => {
                let n = y.dim(1)? / 2;
                activate(activation, &y.narrow(1, 0, n)?)? * y.narrow(1, n, n)?
            }
        }
    }
}

/// The weights in floats, short ones as they are: a device that computes in 16 bits then needs no f32 copy of them.
fn on_host(weights: LinearWeights, (n, k): (usize, usize)) -> Result<Tensor> {
    match weights {
        LinearWeights::F32 { values } => Tensor::from_vec(values, (n, k), &Device::Cpu),
        LinearWeights::F16 { values } => Tensor::from_vec(values, (n, k), &Device::Cpu),
        LinearWeights::Bf16 { values } => Tensor::from_vec(values, (n, k), &Device::Cpu),
        few_bits => Tensor::from_vec(few_bits.widen(k), (n, k), &Device::Cpu),
    }
}

fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        // Candle's name for the tanh formula; the exact one is `gelu_erf`.
        Activation::GeluTanh => x.gelu(),
        Activation::Silu => x.silu(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use half::{bf16, f16};
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::kernels::pool::ComputePool;

    fn part(random: &mut SmallRng, n: usize, k: usize) -> LinearPart {
        let mut noise = |count| (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect::<Vec<_>>();
        let weights = LinearWeights::F32 { values: noise(n * k) };
        LinearPart { shape: LinearShape { n, k }, weights, bias: Some(noise(n)) }
    }

    fn at(invariant: bool) -> DensePlace {
        DensePlace { device: Device::Cpu, dtype: DType::F32, invariant }
    }

    #[test]
    fn a_matrix_computes_what_the_packed_map_does() {
        let random = &mut SmallRng::seed_from_u64(3);
        let pool = ComputePool::serial();
        let x = Tensor::from_vec(
            (0..3 * 33).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect(),
            (3, 33),
            &Device::Cpu,
        )
        .unwrap();
        let mut pairs = Vec::new();
        let [free, fixed] = [false, true].map(at);
        let activations = [Activation::Relu, Activation::GeluTanh, Activation::Silu];
        for (activation, place) in activations.iter().flat_map(|&one| [(one, &free), (one, &fixed)]) {
            let (gate, up) = (part(random, 40, 33), part(random, 40, 33));
            for (epilogue, parts) in [
                (Epilogue::Activated(activation), vec![gate.clone()]),
                (Epilogue::Gated(activation), vec![gate.clone(), up.clone()]),
                (Epilogue::Plain, vec![gate, up]),
            ] {
                let packed = Linear::pack(parts.clone(), epilogue, pool.clone()).unwrap();
                pairs.push((packed, Dense::pack(parts, epilogue, place).unwrap()));
            }
        }
        for (packed, dense) in pairs {
            let (packed, dense) = (packed.forward(&x).unwrap(), dense.forward(&x).unwrap());
            assert_eq!(packed.dims(), dense.dims());
            let apart =
                (packed - dense).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(apart < 2e-5, "{apart}");
        }
    }

    #[test]
    fn short_floats_become_the_matrix_of_their_wide_twins() {
        let shape = LinearShape { n: 3, k: 4 };
        let values = (0..12).map(|i| (i as f32 - 5.0) / 7.0);
        let halves = LinearWeights::F16 { values: values.clone().map(f16::from_f32).collect() };
        let brains = LinearWeights::Bf16 { values: values.map(bf16::from_f32).collect() };
        for weights in [halves, brains] {
            let wide = LinearWeights::F32 { values: weights.widen(4) };
            for dtype in [DType::F32, DType::BF16] {
                let [short, wide] = [weights.clone(), wide.clone()].map(|weights| {
                    let place = DensePlace { device: Device::Cpu, dtype, invariant: false };
                    let part = LinearPart { shape, weights, bias: None };
                    let weight = Dense::pack(vec![part], Epilogue::Plain, &place).unwrap().weight;
                    assert_eq!(weight.dtype(), dtype);
                    weight.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()
                });
                assert_eq!(short, wide, "{dtype:?}");
            }
        }
    }

    #[test]
    fn gate_and_up_of_different_sizes_are_refused() {
        let random = &mut SmallRng::seed_from_u64(4);
        let parts = vec![part(random, 8, 4), part(random, 7, 4)];
        let error = Dense::pack(parts, Epilogue::Gated(Activation::Silu), &at(false)).unwrap_err();
        assert_eq!(error, LinearError::MixedOutputs { gate: 8, up: 7 });
    }
}
