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
    /// ADePT's tensors are not (d, r), (r), (r, d) and (d).
    #[error(
        "ADePT's A, a, B and b are (d, r), (r), (r, d) and (d): found A ({}, {}), a ({bias_a}), B ({}, {}) and b ({bias_b})", a.0, a.1, b.0, b.1
    )]
    Adept {
        /// Shape of A.
        a: (usize, usize),
        /// Length of a.
        bias_a: usize,
        /// Shape of B.
        b: (usize, usize),
        /// Length of b.
        bias_b: usize,
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

/// ADePT's shallow network: a token's embedding `e` gets `ReLU(e . A + a) . B + b` added, wherever it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Adept {
    a: Matrix,
    bias_a: Matrix,
    b: Matrix,
    bias_b: Matrix,
}

impl Adept {
    /// From A `(d, r)`, a `(1, r)`, B `(r, d)` and b `(1, d)`. A network without biases has zeros for them.
    ///
    /// # Errors
    /// When the shapes are not these, or a dimension is 0.
    pub fn new(a: Matrix, bias_a: Matrix, b: Matrix, bias_b: Matrix) -> Result<Self, WeightsError> {
        let (d, r) = a.shape();
        let fits = b.shape() == (r, d) && bias_a.shape() == (1, r) && bias_b.shape() == (1, d);
        if !fits || a.is_empty() {
            let (bias_a, bias_b) = (bias_a.len(), bias_b.len());
            return Err(WeightsError::Adept { a: (d, r), bias_a, b: b.shape(), bias_b });
        }
        Ok(Self { a, bias_a, b, bias_b })
    }

    /// A. `(d, r)`
    pub fn a(&self) -> &Matrix {
        &self.a
    }

    /// a, the bias behind A. `(1, r)`
    pub fn bias_a(&self) -> &Matrix {
        &self.bias_a
    }

    /// B. `(r, d)`
    pub fn b(&self) -> &Matrix {
        &self.b
    }

    /// b, the bias behind B. `(1, d)`
    pub fn bias_b(&self) -> &Matrix {
        &self.bias_b
    }

    /// The rank r, at least 1.
    pub fn rank(&self) -> usize {
        self.a.cols()
    }
}

/// What an adapter does to the embeddings of prompt tokens. Another kind of adapter is another variant here, with its
/// twin in [`dept_embed`](crate::kernels::dept_embed).
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Nothing: prompt tuning.
    None,
    /// DePT: a row for each position.
    LowRank(LowRank),
    /// ADePT: a function of the token.
    Adept(Adept),
}

impl Update {
    /// Its matrices, in the order in which the version hashes them.
    pub fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::None => Vec::new(),
            Self::LowRank(LowRank { a, b, .. }) => vec![a, b],
            Self::Adept(Adept { a, bias_a, b, bias_b }) => vec![a, b, bias_a, bias_b],
        }
    }

    /// The rank r; 0 where there is no update.
    pub fn rank(&self) -> usize {
        match self {
            Self::None => 0,
            Self::LowRank(pair) => pair.rank(),
            Self::Adept(network) => network.rank(),
        }
    }

    /// Columns of B, the hidden size; none where there is no update.
    fn hidden(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::LowRank(LowRank { b, .. }) | Self::Adept(Adept { b, .. }) => Some(b.cols()),
        }
    }
}

impl From<Option<LowRank>> for Update {
    fn from(pair: Option<LowRank>) -> Self {
        pair.map_or(Self::None, Self::LowRank)
    }
}

/// The tensors of an adapter: prompt rows, and what updates the embeddings of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterWeights {
    prompt: Matrix,
    update: Update,
}

impl AdapterWeights {
    /// From the prompt `(m, d)` (m = 0 is legal beside an update) and the update.
    ///
    /// # Errors
    /// When widths differ or there is nothing in it.
    pub fn new(prompt: Matrix, update: impl Into<Update>) -> Result<Self, WeightsError> {
        let update = update.into();
        match update.hidden() {
            Some(hidden) if hidden != prompt.cols() => {
                Err(WeightsError::Hidden { prompt: prompt.cols(), low_rank: hidden })
            }
            None if prompt.is_empty() => Err(WeightsError::Nothing),
            _ => Ok(Self { prompt, update }),
        }
    }

    /// The prompt P. `(m, d)`
    pub fn prompt(&self) -> &Matrix {
        &self.prompt
    }

    /// What it does to the embeddings of prompt tokens.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// DePT's low-rank pair; absent in the other kinds.
    pub fn low_rank(&self) -> Option<&LowRank> {
        match &self.update {
            Update::LowRank(pair) => Some(pair),
            Update::None | Update::Adept(_) => None,
        }
    }

    /// Prompt rows m; 0 for an update alone.
    pub fn prompt_length(&self) -> usize {
        self.prompt.rows()
    }

    /// The rank r; 0 without an update.
    pub fn rank(&self) -> usize {
        self.update.rank()
    }

    /// Whether the embeddings of prompt tokens differ from those of generated ones.
    pub fn updates_tokens(&self) -> bool {
        !matches!(self.update, Update::None)
    }

    /// The longest input in tokens that has update rows, s; unlimited where updates do not depend on the position.
    pub fn max_length(&self) -> Option<usize> {
        self.low_rank().map(LowRank::max_length)
    }

    /// The model width d.
    pub fn hidden(&self) -> usize {
        self.prompt.cols()
    }

    /// Numbers in its tensors: m d + (s + d) r for DePT.
    pub fn parameters(&self) -> usize {
        self.prompt.len() + self.update.matrices().into_iter().map(Matrix::len).sum::<usize>()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.parameters() * size_of::<f32>()
    }
}
