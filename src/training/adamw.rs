//! AdamW (Loshchilov and Hutter 2019) with two learning rates, as torch computes it with weight decay 0.

use super::parameters::{Gradients, Tensors};
use super::settings::Rates;

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-6;

/// The moments of the gradients, and how many steps made them.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimiser {
    /// Steps taken.
    pub steps: u64,
    /// Running means of the gradients.
    pub means: Tensors,
    /// Running means of their squares.
    pub squares: Tensors,
}

impl Optimiser {
    /// Before the first step of tensors like `values`.
    pub fn new(values: &Tensors) -> Self {
        let zeros = Tensors {
            prompt: vec![0.0; values.prompt.len()],
            a: vec![0.0; values.a.len()],
            b: vec![0.0; values.b.len()],
        };
        Self { steps: 0, means: zeros.clone(), squares: zeros }
    }

    /// One step: P moves at one rate, A and B at the other.
    pub fn step(&mut self, values: &mut Tensors, gradients: &Gradients, rates: Rates) {
        self.steps += 1;
        let correction = |beta: f64| 1.0 - beta.powf(self.steps as f64);
        let update = Update { corrections: (correction(BETAS.0), correction(BETAS.1)) };
        let (means, squares) = (&mut self.means, &mut self.squares);
        update.apply(
            &mut values.prompt,
            &gradients.prompt,
            (&mut means.prompt, &mut squares.prompt),
            rates.prompt,
        );
        update.apply(&mut values.a, &gradients.a, (&mut means.a, &mut squares.a), rates.low_rank);
        update.apply(&mut values.b, &gradients.b, (&mut means.b, &mut squares.b), rates.low_rank);
    }
}

struct Update {
    corrections: (f64, f64),
}

impl Update {
    fn apply(
        &self,
        values: &mut [f32],
        gradients: &[f32],
        (means, squares): (&mut [f32], &mut [f32]),
        rate: f64,
    ) {
        let step = (rate / self.corrections.0) as f32;
        let root = self.corrections.1.sqrt() as f32;
        let (keep_mean, keep_square) = (BETAS.0 as f32, BETAS.1 as f32);
        let (take_mean, take_square) = ((1.0 - BETAS.0) as f32, (1.0 - BETAS.1) as f32);
        let moments = means.iter_mut().zip(squares);
        for ((value, gradient), (mean, square)) in values.iter_mut().zip(gradients).zip(moments) {
            *mean = keep_mean * *mean + take_mean * gradient;
            *square = keep_square * *square + take_square * gradient * gradient;
            *value -= step * *mean / (square.sqrt() / root + EPS as f32);
        }
    }
}
