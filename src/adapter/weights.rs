//! The tensors of one adapter, factored, as the embedding step reads them.

use super::tensor::Matrix;

/// Why matrices do not make an adapter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// A is (s, r) and B is (r, d): their r differ.
    #[error("A has {a} columns and B has {b} rows: both must be the rank r")]
    Rank {
        /// Columns of A.
        a: usize,
        /// Rows of B.
        b: usize,
    },
    /// The low-rank pair has an empty side.
    #[error(
        "a low-rank pair of shapes ({s}, {r}) and ({r}, {d}) updates nothing: leave it out for plain prompt tuning"
    )]
    Empty {
        /// Rows of A.
        s: usize,
        /// The rank.
        r: usize,
        /// Columns of B.
        d: usize,
    },
    /// The prompt and B are of different models.
    #[error("the prompt has width {prompt} and B has width {low_rank}: both must be the hidden size d")]
    Hidden {
        /// Columns of the prompt.
        prompt: usize,
        /// Columns of B.
        low_rank: usize,
    },
    /// The scale is not a number to multiply with.
    #[error("the scale of the low-rank update must be finite, found {0}")]
    Scale(f32),
    /// No prompt rows and no low-rank pair.
    #[error("an adapter without prompt rows and without a low-rank pair changes nothing")]
    Nothing,
}

/// The low-rank pair: token row `i` gets `scale * A[i] . B` added to its embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    a: Matrix,
    b: Matrix,
    scale: f32,
}

impl LowRank {
    /// From A `(s, r)`, B `(r, d)` and the scale `lora_alpha / sqrt(r)`.
    ///
    /// # Errors
    /// When the ranks differ, a dimension is 0 or the scale is not finite.
    pub fn new(a: Matrix, b: Matrix, scale: f32) -> Result<Self, WeightsError> {
        if a.cols() != b.rows() {
            return Err(WeightsError::Rank { a: a.cols(), b: b.rows() });
        }
        if a.is_empty() || b.is_empty() {
            return Err(WeightsError::Empty { s: a.rows(), r: a.cols(), d: b.cols() });
        }
        if !scale.is_finite() {
            return Err(WeightsError::Scale(scale));
        }
        Ok(Self { a, b, scale })
    }

    /// A. `(s, r)`
    pub fn a(&self) -> &Matrix {
        &self.a
    }

    /// B. `(r, d)`
    pub fn b(&self) -> &Matrix {
        &self.b
    }

    /// The factor on A . B.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Rows of A: the longest input in tokens, s.
    pub fn max_length(&self) -> usize {
        self.a.rows()
    }

    /// The rank r, at least 1.
    pub fn rank(&self) -> usize {
        self.a.cols()
    }
}

/// The tensors of an adapter: prompt rows and, for DePT, the low-rank pair.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterWeights {
    prompt: Matrix,
    low_rank: Option<LowRank>,
}

impl AdapterWeights {
    /// From the prompt `(m, d)` (m = 0 is legal beside a low-rank pair) and the pair.
    ///
    /// # Errors
    /// When widths differ or there is nothing in it.
    pub fn new(prompt: Matrix, low_rank: Option<LowRank>) -> Result<Self, WeightsError> {
        match &low_rank {
            Some(pair) if pair.b.cols() != prompt.cols() => {
                Err(WeightsError::Hidden { prompt: prompt.cols(), low_rank: pair.b.cols() })
            }
            None if prompt.is_empty() => Err(WeightsError::Nothing),
            _ => Ok(Self { prompt, low_rank }),
        }
    }

    /// The prompt P. `(m, d)`
    pub fn prompt(&self) -> &Matrix {
        &self.prompt
    }

    /// The low-rank pair; absent in plain prompt tuning.
    pub fn low_rank(&self) -> Option<&LowRank> {
        self.low_rank.as_ref()
    }

    /// Prompt rows m; 0 for a low-rank pair alone.
    pub fn prompt_length(&self) -> usize {
        self.prompt.rows()
    }

    /// The rank r; 0 without a low-rank pair.
    pub fn rank(&self) -> usize {
        self.low_rank.as_ref().map_or(0, LowRank::rank)
    }

    /// Whether the embeddings of prompt tokens differ from those of generated ones.
    pub fn updates_tokens(&self) -> bool {
        self.low_rank.is_some()
    }

    /// The longest input in tokens that has update rows, s; unlimited without a low-rank pair.
    pub fn max_length(&self) -> Option<usize> {
        self.low_rank.as_ref().map(LowRank::max_length)
    }

    /// The model width d.
    pub fn hidden(&self) -> usize {
        self.prompt.cols()
    }

    /// Trained numbers: m d + (s + d) r.
    pub fn parameters(&self) -> usize {
        self.prompt.len() + self.low_rank.as_ref().map_or(0, |pair| pair.a.len() + pair.b.len())
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.parameters() * size_of::<f32>()
    }
}
