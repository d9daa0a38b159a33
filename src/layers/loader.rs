use super::MlpShape;
use crate::{
    backbones::weights::{RawEmbedding, RawLinear, Weights, WeightsError},
    kernels::{
        dept_embed::{EmbeddingTable, TableError},
        linear::{
            ActivationBits, Gate, Linear, LinearError, LinearPart, LinearShape, LinearWeights, widen_blocks,
        },
        norm::{Norm, NormError},
        pool::ComputePool,
    },
};

/// The arithmetic that linear maps compute with, decided once at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recipe {
    /// As stored: 8-bit checkpoints stay 8-bit, block formats (GGUF's Q8_0, Q4_K and so on) become bytes in blocks of 32,
    /// everything else becomes f32.
    #[default]
    Stored,
    /// Everything in f32, weights of few bits widened: the exact twin to compare with.
    F32,
    /// Everything in 8-bit weights with 15-bit activations; f32 weights are rounded, an output row a scale.
    I8,
}

/// Why a layer could not be made from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint lacks a tensor or holds another one.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A linear map can't be built.
    #[error("'{module}' can't be used: {source}")]
    Linear {
        /// The module's name in the checkpoint.
        module: String,
        /// Why.
        source: LinearError,
    },
    /// A norm can't be built.
    #[error("'{module}' can't be used: {source}")]
    Norm {
        /// The module's name in the checkpoint.
        module: String,
        /// Why.
        source: NormError,
    },
    /// The embedding table can't be built.
    #[error("'{module}' can't be used: {source}")]
    Table {
        /// The module's name in the checkpoint.
        module: String,
        /// Why.
        source: TableError,
    },
}

/// How a checkpoint stores one of the maps that are packed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// `(n, k)`, an output a row.
    Rows,
    /// `(k, n)`, as GPT-2's `Conv1D`.
    Transposed,
    /// `(n, k)`, heads of `dim` rows in which neighbours turn together under the rotary embedding, as llama.cpp stores
    /// Llama's q and k. Brought into the order in which row `i` turns with row `i + dim / 2`.
    NeighbourPairs {
        /// Rows a head.
        dim: usize,
    },
}

/// One of the maps that are packed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The module's name, behind the prefix that all parts share.
    pub name: &'a str,
    /// Outputs.
    pub n: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// How the weight is stored.
    pub stored: Stored,
}

/// A norm's kind and constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormKind {
    /// Root-mean-square, without a bias.
    Rms {
        /// Added to the mean square.
        eps: f32,
        /// Added to the stored weight: 1 where a checkpoint stores how far the weight is from 1.
        offset: f32,
    },
    /// Layer norm with a bias.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

/// Makes layers from a checkpoint's tensors, all with one recipe and on one pool.
#[derive(Debug)]
pub struct Loader<'a> {
    /// The checkpoint.
    pub weights: &'a Weights,
    /// The arithmetic.
    pub recipe: Recipe,
    /// Where the layers compute.
    pub pool: ComputePool,
    /// Whether gradients go back through the layers, for training: linear maps then take twice the memory.
    pub gradients: bool,
}

impl Loader<'_> {
    /// The maps `{prefix}{name}` of `k` inputs, each with its outputs, as one packed map.
    ///
    /// # Errors
    /// When one is missing, has another shape or is not finite.
    pub fn linear(&self, prefix: &str, parts: &[(&str, usize)], k: usize) -> Result<Linear, LoadError> {
        let plain = parts.iter().map(|&(name, n)| Part { name, n, bias: false, stored: Stored::Rows });
        self.packed(prefix, &plain.collect::<Vec<_>>(), k)
    }

    /// The maps `parts` of `k` inputs, with their biases, as one packed map.
    ///
    /// # Errors
    /// When one is missing, has another shape or is not finite.
    pub fn packed(&self, prefix: &str, parts: &[Part<'_>], k: usize) -> Result<Linear, LoadError> {
        self.concat(self.parts(prefix, parts, k)?)
            .map_err(|source| LoadError::Linear { module: prefix.to_owned(), source })
    }

    fn concat(&self, parts: Vec<LinearPart>) -> Result<Linear, LinearError> {
        let pool = self.pool.clone();
        if self.gradients { Linear::differentiable(parts, pool) } else { Linear::concat(parts, pool) }
    }

    /// The inner map of an MLP: one part, or gate and up where the shape is gated. Its activation is part of it, but where
    /// gradients go back through it: then it is an op of its own.
    ///
    /// # Errors
    /// When a part is missing, has another shape or is not finite, or their number does not fit the shape.
    pub fn mlp_inner(
        &self,
        prefix: &str,
        parts: &[Part<'_>],
        k: usize,
        shape: MlpShape,
    ) -> Result<(Linear, Option<Gate>), LoadError> {
        let pool = self.pool.clone();
        let mut parts = self.parts(prefix, parts, k)?.into_iter();
        let inner = match (shape, parts.next(), parts.next()) {
            (MlpShape::Plain(activation), Some(part), None) if self.gradients => {
                self.concat(vec![part]).map(|linear| (linear, Some(Gate::activation(activation, pool))))
            }
            (MlpShape::Gated(activation), Some(gate), Some(up)) if self.gradients => {
                self.concat(vec![gate, up]).map(|linear| (linear, Some(Gate::gated(activation, pool))))
            }
            (MlpShape::Plain(activation), Some(part), None) => {
                Linear::activated(part, activation, pool).map(|linear| (linear, None))
            }
            (MlpShape::Gated(activation), Some(gate), Some(up)) => {
                Linear::gated(gate, up, activation, pool).map(|linear| (linear, None))
            }
            _ => Err(LinearError::NoParts),
        };
        inner.map_err(|source| LoadError::Linear { module: prefix.to_owned(), source })
    }

    fn parts(&self, prefix: &str, parts: &[Part<'_>], k: usize) -> Result<Vec<LinearPart>, LoadError> {
        let read = |part: &Part<'_>| {
            let module = format!("{prefix}{}", part.name);
            let shape = LinearShape { n: part.n, k };
            let weights = self.in_recipe(self.stored_weight(&module, part, k)?, shape);
            let weights = weights.map_err(|source| LoadError::Linear { module: module.clone(), source })?;
            let bias = part.bias.then(|| self.stored_bias(&module, part)).transpose()?;
            Ok(LinearPart { shape, weights, bias })
        };
        let parts = parts.iter().map(read).collect::<Result<Vec<_>, LoadError>>()?;
        Ok(same_recipe(parts))
    }

    fn stored_weight(&self, module: &str, part: &Part<'_>, k: usize) -> Result<RawLinear, LoadError> {
        Ok(match part.stored {
            Stored::Rows => self.weights.linear(module, part.n, k)?,
            Stored::Transposed => {
                let values = self.weights.tensor_f32(&format!("{module}.weight"), &[k, part.n])?;
                RawLinear::F32 { values: transpose(&values, part.n) }
            }
            Stored::NeighbourPairs { dim } => match self.weights.linear(module, part.n, k)? {
                RawLinear::F32 { values } => RawLinear::F32 { values: part_pairs(&values, k, dim) },
                RawLinear::Blocks { values } => RawLinear::Blocks { values: part_pairs(&values, k, dim) },
                RawLinear::I8 { values, scales, activation_bits } => RawLinear::I8 {
                    values: part_pairs(&values, k, dim),
                    scales: part_pairs(&scales, 1, dim),
                    activation_bits,
                },
            },
        })
    }

    fn stored_bias(&self, module: &str, part: &Part<'_>) -> Result<Vec<f32>, LoadError> {
        let bias = self.weights.tensor_f32(&format!("{module}.bias"), &[part.n])?;
        Ok(match part.stored {
            Stored::NeighbourPairs { dim } => part_pairs(&bias, 1, dim),
            Stored::Rows | Stored::Transposed => bias,
        })
    }

    fn in_recipe(&self, raw: RawLinear, shape: LinearShape) -> Result<LinearWeights, LinearError> {
        Ok(match (raw, self.recipe) {
            (RawLinear::F32 { values } | RawLinear::Blocks { values }, Recipe::I8) => {
                LinearWeights::quantise(&values, shape, ActivationBits::Fifteen)?
            }
            (RawLinear::Blocks { values }, Recipe::Stored) => LinearWeights::quantise_blocks(&values, shape)?,
            (RawLinear::F32 { values } | RawLinear::Blocks { values }, _) => LinearWeights::F32 { values },
            (RawLinear::I8 { values, scales, .. }, Recipe::F32) => {
                LinearWeights::F32 { values: widen(&values, &scales, shape.k) }
            }
            (RawLinear::I8 { values, scales, activation_bits }, _) => {
                let activations =
                    if activation_bits <= 8 { ActivationBits::Eight } else { ActivationBits::Fifteen };
                LinearWeights::I8 { values, scales, activations }
            }
        })
    }

    /// The norm `module` over `d` elements.
    ///
    /// # Errors
    /// When it is missing, has another shape or is not finite.
    pub fn norm(&self, module: &str, d: usize, kind: NormKind) -> Result<Norm, LoadError> {
        let mut weight = self.weights.tensor_f32(&format!("{module}.weight"), &[d])?;
        let norm = match kind {
            NormKind::Rms { eps, offset } => {
                weight.iter_mut().for_each(|weight| *weight += offset);
                Norm::rms(weight, eps, self.pool.clone())
            }
            NormKind::Layer { eps } => {
                let bias = self.weights.tensor_f32(&format!("{module}.bias"), &[d])?;
                Norm::layer(weight, bias, eps, self.pool.clone())
            }
        };
        norm.map_err(|source| LoadError::Norm { module: module.to_owned(), source })
    }

    /// The embedding table `module` `(vocab, d)`.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn embedding(&self, module: &str, vocab: usize, d: usize) -> Result<EmbeddingTable, LoadError> {
        let table = match self.weights.embedding(module, vocab, d)? {
            RawEmbedding::F32 { values } | RawEmbedding::Blocks { values } => {
                EmbeddingTable::f32(vocab, d, values)
            }
            RawEmbedding::I8 { values, scales } => EmbeddingTable::i8(vocab, d, values, scales),
        };
        table.map_err(|source| LoadError::Table { module: module.to_owned(), source })
    }

    /// The tied output map of `vocab` outputs: the embedding table read as a linear map.
    ///
    /// # Errors
    /// When the table is missing, has another shape or is not finite.
    pub fn tied_head(&self, module: &str, vocab: usize, d: usize) -> Result<Linear, LoadError> {
        let shape = LinearShape { n: vocab, k: d };
        let raw = match self.weights.embedding(module, vocab, d)? {
            RawEmbedding::F32 { values } => RawLinear::F32 { values },
            RawEmbedding::Blocks { values } => RawLinear::Blocks { values },
            // Logits are what sampling compares: the finer activations cost nothing where memory is the limit.
            RawEmbedding::I8 { values, scales } => RawLinear::I8 { values, scales, activation_bits: 15 },
        };
        let part = |weights| vec![LinearPart { shape, weights, bias: None }];
        let linear = self.in_recipe(raw, shape).and_then(|weights| self.concat(part(weights)));
        linear.map_err(|source| LoadError::Linear { module: module.to_owned(), source })
    }
}

/// Parts of one call share their recipe: where one needs finer activations, all get them; where one is in f32, blocks
/// beside it are widened.
fn same_recipe(mut parts: Vec<LinearPart>) -> Vec<LinearPart> {
    if parts.iter().any(|part| matches!(part.weights, LinearWeights::F32 { .. })) {
        for LinearPart { weights, shape, .. } in &mut parts {
            if let LinearWeights::Blocks { values, scales } = weights {
                *weights = LinearWeights::F32 { values: widen_blocks(values, scales, shape.k) };
            }
        }
    }
    let fine = |part: &LinearPart| {
        matches!(&part.weights, LinearWeights::I8 { activations: ActivationBits::Fifteen, .. })
    };
    if parts.iter().any(fine) {
        for part in &mut parts {
            if let LinearWeights::I8 { activations, .. } = &mut part.weights {
                *activations = ActivationBits::Fifteen;
            }
        }
    }
    parts
}

/// `(k, n)` to `(n, k)`
fn transpose(values: &[f32], n: usize) -> Vec<f32> {
    (0..n).flat_map(|column| values.iter().skip(column).step_by(n).copied()).collect()
}

/// Rows of `k` elements, heads of `dim` rows: first the even rows of a head, then the odd ones.
fn part_pairs<T: Copy>(values: &[T], k: usize, dim: usize) -> Vec<T> {
    let mut parted = Vec::with_capacity(values.len());
    for head in values.chunks(dim * k) {
        for parity in [0, 1] {
            head.chunks(k).skip(parity).step_by(2).for_each(|row| parted.extend_from_slice(row));
        }
    }
    parted
}

/// `values * scale` by row. `(n, k)`
fn widen(values: &[i8], scales: &[f32], k: usize) -> Vec<f32> {
    let rows = values.chunks_exact(k).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |&value| f32::from(value) * scale)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_blocks_are_widened_beside_one_in_f32() {
        let shape = LinearShape { n: 2, k: 33 };
        let values: Vec<f32> = (0..66).map(|i| (i % 7) as f32 * 127.0 / 6.0).collect();
        let part = |weights| LinearPart { shape, weights, bias: None };
        let blocks = || part(LinearWeights::quantise_blocks(&values, shape).unwrap());
        let plain = part(LinearWeights::F32 { values: values.clone() });
        let parts = same_recipe(vec![blocks(), plain]);
        let LinearWeights::F32 { values: widened } = &parts[0].weights else { panic!("{parts:?}") };
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.5;
        assert!(widened.iter().zip(&values).all(close), "{widened:?}");
        assert_eq!(same_recipe(vec![blocks(), blocks()])[1].weights, blocks().weights);
    }

    #[test]
    fn stored_orders_become_an_output_a_row() {
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        // Two heads of four rows, two elements a row.
        let rows: Vec<usize> = (0..16).collect();
        let expected = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
        assert_eq!(part_pairs(&rows, 2, 4), expected);
        assert_eq!(part_pairs(&[0, 1, 2, 3], 1, 4), [0, 2, 1, 3]);
    }
}
