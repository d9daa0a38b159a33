//! What is trained: P, A and B.

use candle_core::{Device, Tensor, Var, backprop::GradStore};

use super::error::TrainError;
use crate::{
    adapter::{AdapterWeights, LowRank, Matrix},
    kernels::dept_embed::{TrainedPair, TrainedSlot},
};

/// The shape of an adapter that is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterShape {
    /// Prompt rows m; 0 for the low-rank pair alone.
    pub prompt_length: usize,
    /// r; 0 for prompt tuning.
    pub rank: usize,
    /// s, the longest source in tokens.
    pub max_length: usize,
    /// d, the model's width.
    pub hidden: usize,
    /// `lora_alpha`.
    pub alpha: f64,
}

impl AdapterShape {
    /// `lora_alpha / sqrt(r)`.
    pub fn scale(&self) -> f32 {
        if self.rank == 0 { 0.0 } else { (self.alpha / (self.rank as f64).sqrt()) as f32 }
    }

    /// Trained numbers: m d + (s + d) r.
    pub fn parameters(&self) -> usize {
        self.prompt_length * self.hidden + (self.max_length + self.hidden) * self.rank
    }
}

/// One value for each of the three tensors, row-major.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensors {
    /// Of P. `(m, d)`
    pub prompt: Vec<f32>,
    /// Of A. `(s, r)`
    pub a: Vec<f32>,
    /// Of B. `(r, d)`
    pub b: Vec<f32>,
}

impl Tensors {
    /// Zeros.
    pub fn zeros(shape: &AdapterShape) -> Self {
        Self {
            prompt: vec![0.0; shape.prompt_length * shape.hidden],
            a: vec![0.0; shape.max_length * shape.rank],
            b: vec![0.0; shape.rank * shape.hidden],
        }
    }

    /// All three, with the names that checkpoints give them.
    pub fn named(&self) -> [(&'static str, &[f32]); 3] {
        [("P", &self.prompt), ("A", &self.a), ("B", &self.b)]
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        let squares =
            self.named().into_iter().flat_map(|(_, values)| values.iter().map(|v| f64::from(*v).powi(2)));
        squares.sum::<f64>().sqrt()
    }

    /// Multiplies every number.
    pub fn scale(&mut self, factor: f32) {
        [&mut self.prompt, &mut self.a, &mut self.b]
            .into_iter()
            .for_each(|values| values.iter_mut().for_each(|value| *value *= factor));
    }

    /// Adds the others' numbers.
    pub fn add(&mut self, other: &Self) {
        let pairs = [(&mut self.prompt, &other.prompt), (&mut self.a, &other.a), (&mut self.b, &other.b)];
        for (values, more) in pairs {
            values.iter_mut().zip(more).for_each(|(value, more)| *value += more);
        }
    }
}

/// Gradients of the three tensors.
pub type Gradients = Tensors;

/// The trained tensors with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// Their shape.
    pub shape: AdapterShape,
    /// Their values.
    pub values: Tensors,
}

/// The tensors of one pass, whose gradients will be asked for.
pub(super) struct Leaves {
    prompt: Var,
    pair: Option<(Var, Var)>,
    scale: f32,
}

impl Parameters {
    /// The tensors as variables of a pass.
    pub(super) fn leaves(&self) -> candle_core::Result<Leaves> {
        let AdapterShape { prompt_length, rank, max_length, hidden, .. } = self.shape;
        let var = |values: &[f32], shape| Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu)?);
        let pair = match rank {
            0 => None,
            _ => Some((var(&self.values.a, (max_length, rank))?, var(&self.values.b, (rank, hidden))?)),
        };
        Ok(Leaves {
            prompt: var(&self.values.prompt, (prompt_length, hidden))?,
            pair,
            scale: self.shape.scale(),
        })
    }

    /// The adapter as it is served.
    ///
    /// # Errors
    /// When a number is not finite, or there is nothing to train.
    pub fn weights(&self) -> Result<AdapterWeights, TrainError> {
        let AdapterShape { prompt_length, rank, max_length, hidden, .. } = self.shape;
        let Tensors { prompt, a, b } = &self.values;
        let prompt = match prompt_length {
            0 => Matrix::empty(hidden),
            m => Matrix::new(m, hidden, prompt.clone())?,
        };
        let pair = match rank {
            0 => None,
            r => {
                let (a, b) = (Matrix::new(max_length, r, a.clone())?, Matrix::new(r, hidden, b.clone())?);
                Some(LowRank::new(a, b, self.shape.scale())?)
            }
        };
        Ok(AdapterWeights::new(prompt, pair)?)
    }
}

impl Leaves {
    /// As the backbone takes them.
    pub fn slot(&self) -> TrainedSlot {
        let pair = self.pair.as_ref().map(|(a, b)| TrainedPair {
            a: a.as_tensor().clone(),
            b: b.as_tensor().clone(),
            scale: self.scale,
        });
        TrainedSlot { prompt: self.prompt.as_tensor().clone(), pair }
    }

    /// Their gradients; what no row has touched has none, which is zero.
    pub fn gradients(&self, found: &GradStore) -> candle_core::Result<Gradients> {
        let values = |var: &Var| match found.get(var.as_tensor()) {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
            None => Ok(vec![0.0; var.elem_count()]),
        };
        let (a, b) = match &self.pair {
            Some((a, b)) => (values(a)?, values(b)?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Gradients { prompt: values(&self.prompt)?, a, b })
    }
}
