//! The two ends of a model: its table of word embeddings, and the map that makes logits, which may be the same matrix.

use bytes::Bytes;

use super::{
    loader::{Group, LoadError, Loader, Part, strip},
    packed_parts::{TableRows, Wanted},
    recipe::{bytes, nibbles},
    stored::Stored,
};
use crate::{
    backbones::weights::{MatrixRows, RawEmbedding, RawLinear, WeightsError},
    kernels::{
        dept_embed::{EmbeddingTable, PlacedTable, TableError},
        linear::{ActivationBits, Epilogue, LinearMap, LinearPart, LinearShape, LinearWeights},
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

    /// The table as the file has it: blocks of few bits and short floats stay so where that is exact.
    fn table(
        &self,
        module: &str,
        (vocab, d): (usize, usize),
    ) -> Result<Result<EmbeddingTable, TableError>, WeightsError> {
        if let Some((format, bytes)) = self.weights.rows(module, vocab, d)? {
            let read = || Bytes::copy_from_slice(bytes);
            return Ok(self.packed.table(module, TableRows { format, vocab, hidden: d }, read));
        }
        Ok(match self.weights.embedding(&MatrixRows::all(module, (vocab, d)))? {
            RawEmbedding::Floats(floats) => EmbeddingTable::f32(vocab, d, floats.widened()),
            RawEmbedding::Blocks { values } => EmbeddingTable::f32(vocab, d, values),
            RawEmbedding::I8 { values, scales } => EmbeddingTable::i8(vocab, d, values, scales),
        })
    }

    /// The tied output map of `vocab` outputs: the embedding table read as a linear map.
    ///
    /// # Errors
    /// When the table is missing, has another shape or is not finite.
    pub fn tied_head(&self, module: &str, vocab: usize, d: usize) -> Result<LinearMap, LoadError> {
        let shape = LinearShape { n: vocab, k: d };
        // A checkpoint may have logits of its own too, or read the table in both ways.
        let name = format!("{module} as logits");
        let wanted = Wanted { name, shape, epilogue: Epilogue::Plain, strip: strip(d) };
        self.map(module, wanted, |rows| {
            let shape = LinearShape { n: rows.len(), k: d };
            let weights = self.tied_weights(&MatrixRows { module, shape: (vocab, d), rows })?;
            Ok(vec![LinearPart { shape, weights, bias: None }])
        })
    }

    fn tied_weights(&self, wanted: &MatrixRows<'_>) -> Result<LinearWeights, LoadError> {
        if let Some(raw) = self.nibbles(wanted)? {
            return Ok(nibbles(raw, LOGITS));
        }
        if let Some(raw) = self.bytes(wanted)? {
            return Ok(bytes(raw, LOGITS));
        }
        let raw = match self.weights.embedding(wanted)? {
            RawEmbedding::Floats(floats) => RawLinear::Floats(floats),
            RawEmbedding::Blocks { values } => RawLinear::Blocks { values },
            RawEmbedding::I8 { values, scales } => RawLinear::I8 { values, scales, activation_bits: 15 },
        };
        let shape = LinearShape { n: wanted.rows.len(), k: wanted.shape.1 };
        let weights = self.recipe.weights(raw, shape, LOGITS);
        weights.map_err(|source| LoadError::Linear { module: wanted.told(), source })
    }

    /// The output map `module` of `vocab` outputs.
    ///
    /// # Errors
    /// When it is missing, has another shape or is not finite.
    pub fn head(&self, module: &str, vocab: usize, d: usize) -> Result<LinearMap, LoadError> {
        let part = Part { name: module, n: vocab, bias: false, stored: Stored::Rows };
        let group = Group { prefix: "", parts: &[part], k: d, activations: LOGITS };
        self.group(group, Epilogue::Plain)
    }
}
