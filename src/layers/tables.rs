//! The two ends of a model: its table of word embeddings, and the map that makes logits, which may be the same matrix.

use super::{
    loader::{LoadError, Loader, Part},
    recipe::{bytes, nibbles},
    stored::Stored,
};
use crate::{
    backbones::weights::{RawBlocks, RawEmbedding, RawLinear, WeightsError},
    kernels::{
        dept_embed::{EmbeddingTable, PlacedTable, TableError},
        linear::{ActivationBits, LinearMap, LinearPart, LinearShape},
    },
};

/// Logits are what sampling compares: finer activations change their order least, and cost nothing where memory is the limit.
const LOGITS: ActivationBits = ActivationBits::Fifteen;

impl Loader<'_> {
    /// The embedding table `module` `(vocab, d)`, each row times `scale`.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn embedding(
        &self,
        module: &str,
        (vocab, d): (usize, usize),
        scale: f32,
    ) -> Result<PlacedTable, LoadError> {
        let table = self.table(module, (vocab, d))?;
        let table = table.map_err(|source| LoadError::Table { module: module.to_owned(), source })?;
        let table = if scale == 1.0 { table } else { table.scaled(scale) };
        self.placed(module, PlacedTable::new(table, &self.place))
    }

    /// The table as the file has it: blocks of few bits stay blocks where that is exact.
    fn table(
        &self,
        module: &str,
        (vocab, d): (usize, usize),
    ) -> Result<Result<EmbeddingTable, TableError>, WeightsError> {
        if let Some(RawBlocks { levels, scales, offsets }) = self.weights.blocks(module, vocab, d)? {
            return Ok(EmbeddingTable::blocks(vocab, d, levels, scales, offsets));
        }
        Ok(match self.weights.embedding(module, vocab, d)? {
            RawEmbedding::F32 { values } | RawEmbedding::Blocks { values } => {
                EmbeddingTable::f32(vocab, d, values)
            }
            RawEmbedding::I8 { values, scales } => EmbeddingTable::i8(vocab, d, values, scales),
        })
    }

    /// The tied output map of `vocab` outputs: the embedding table read as a linear map.
    ///
    /// # Errors
    /// When the table is missing, has another shape or is not finite.
    pub fn tied_head(&self, module: &str, vocab: usize, d: usize) -> Result<LinearMap, LoadError> {
        let shape = LinearShape { n: vocab, k: d };
        let part = |weights| vec![LinearPart { shape, weights, bias: None }];
        let as_it_is = match self.nibbles(module, shape)? {
            Some(raw) => Some(nibbles(raw, LOGITS)),
            None => self.bytes(module, shape)?.map(|raw| bytes(raw, LOGITS)),
        };
        if let Some(weights) = as_it_is {
            let linear = self.concat(part(weights));
            return linear.map_err(|source| LoadError::Linear { module: module.to_owned(), source });
        }
        let raw = match self.weights.embedding(module, vocab, d)? {
            RawEmbedding::F32 { values } => RawLinear::F32 { values },
            RawEmbedding::Blocks { values } => RawLinear::Blocks { values },
            RawEmbedding::I8 { values, scales } => RawLinear::I8 { values, scales, activation_bits: 15 },
        };
        let linear = self.recipe.weights(raw, shape, LOGITS).and_then(|weights| self.concat(part(weights)));
        linear.map_err(|source| LoadError::Linear { module: module.to_owned(), source })
    }

    /// The output map `module` of `vocab` outputs.
    ///
    /// # Errors
    /// When it is missing, has another shape or is not finite.
    pub fn head(&self, module: &str, vocab: usize, d: usize) -> Result<LinearMap, LoadError> {
        let part = Part { name: module, n: vocab, bias: false, stored: Stored::Rows };
        self.concat(self.parts("", &[part], d, LOGITS)?)
            .map_err(|source| LoadError::Linear { module: module.to_owned(), source })
    }
}
