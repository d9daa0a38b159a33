use crate::{
    backbones::weights::{RawEmbedding, RawLinear, Weights, WeightsError},
    kernels::{
        dept_embed::{EmbeddingTable, TableError},
        linear::{ActivationBits, Linear, LinearError, LinearPart, LinearShape, LinearWeights},
        norm::{Norm, NormError},
        pool::ComputePool,
    },
};

/// The arithmetic that linear maps compute with, decided once at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recipe {
    /// As stored: 8-bit checkpoints stay 8-bit, everything else becomes f32.
    #[default]
    Stored,
    /// Everything in f32, 8-bit weights widened: the exact twin to compare with.
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

/// Makes layers from a checkpoint's tensors, all with one recipe and on one pool.
#[derive(Debug)]
pub struct Loader<'a> {
    /// The checkpoint.
    pub weights: &'a Weights,
    /// The arithmetic.
    pub recipe: Recipe,
    /// Where the layers compute.
    pub pool: ComputePool,
}

impl Loader<'_> {
    /// The maps `{prefix}{name}` of `k` inputs, each with its outputs, as one packed map.
    ///
    /// # Errors
    /// When one is missing, has another shape or is not finite.
    pub fn linear(&self, prefix: &str, parts: &[(&str, usize)], k: usize) -> Result<Linear, LoadError> {
        let part = |&(name, n): &(&str, usize)| {
            let module = format!("{prefix}{name}");
            let shape = LinearShape { n, k };
            let weights = self.in_recipe(self.weights.linear(&module, n, k)?, shape);
            let weights = weights.map_err(|source| LoadError::Linear { module, source })?;
            Ok(LinearPart { shape, weights, bias: None })
        };
        let parts = parts.iter().map(part).collect::<Result<Vec<_>, LoadError>>()?;
        Linear::concat(same_recipe(parts), self.pool.clone())
            .map_err(|source| LoadError::Linear { module: prefix.to_owned(), source })
    }

    fn in_recipe(&self, raw: RawLinear, shape: LinearShape) -> Result<LinearWeights, LinearError> {
        Ok(match (raw, self.recipe) {
            (RawLinear::F32 { values }, Recipe::I8) => {
                LinearWeights::quantise(&values, shape, ActivationBits::Fifteen)?
            }
            (RawLinear::F32 { values }, _) => LinearWeights::F32 { values },
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
    pub fn norm(&self, module: &str, d: usize, eps: f32) -> Result<Norm, LoadError> {
        let weight = self.weights.tensor_f32(&format!("{module}.weight"), &[d])?;
        Norm::rms(weight, eps, self.pool.clone())
            .map_err(|source| LoadError::Norm { module: module.to_owned(), source })
    }

    /// The embedding table `module` `(vocab, d)`.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn embedding(&self, module: &str, vocab: usize, d: usize) -> Result<EmbeddingTable, LoadError> {
        let table = match self.weights.embedding(module, vocab, d)? {
            RawEmbedding::F32 { values } => EmbeddingTable::f32(vocab, d, values),
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
            // Logits are what sampling compares: the finer activations cost nothing where memory is the limit.
            RawEmbedding::I8 { values, scales } => RawLinear::I8 { values, scales, activation_bits: 15 },
        };
        let linear = self.in_recipe(raw, shape).and_then(|w| Linear::new(shape, w, None, self.pool.clone()));
        linear.map_err(|source| LoadError::Linear { module: module.to_owned(), source })
    }
}

/// Parts of one call share their recipe: where one needs finer activations, all get them.
fn same_recipe(mut parts: Vec<LinearPart>) -> Vec<LinearPart> {
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

/// `values * scale` by row. `(n, k)`
fn widen(values: &[i8], scales: &[f32], k: usize) -> Vec<f32> {
    let rows = values.chunks_exact(k).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |&value| f32::from(value) * scale)).collect()
}
