use super::AdapterName;

/// How a backbone reads its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// Encoder and decoder (T5): the prompt goes through the encoder, text starts from nothing.
    Seq2Seq,
    /// Decoder only (GPT-2, Llama): text continues the prompt.
    Causal,
}

/// What the rest of the server needs to know of the resident backbone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelProfile {
    /// The name on the wire; no adapter can bear it.
    pub name: String,
    /// SHA-256 of the weights in hexadecimal digits: what a card's `base.fingerprint` is held against.
    pub fingerprint: String,
    /// How it reads its prompt.
    pub kind: ModelKind,
    /// Width of an embedding row, d.
    pub hidden: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// The token that ends a text; the first where there are several.
    pub eos: Option<u32>,
    /// How long a sequence may be.
    pub context: ContextWindow,
}

/// How long a sequence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextWindow {
    /// Prompt and answer each for itself: an encoder reads the one, a decoder writes the other.
    Apart {
        /// Most rows (prompt tokens and virtual tokens) of a prompt.
        prompt_rows: usize,
        /// Most tokens of an answer.
        new_tokens: usize,
    },
    /// Prompt and answer together.
    Shared {
        /// Most rows of both.
        rows: usize,
    },
}

impl ContextWindow {
    /// Most rows of a prompt whose answer may take `new_tokens`.
    pub fn max_prompt_rows(&self, new_tokens: usize) -> usize {
        match *self {
            Self::Apart { prompt_rows, .. } => prompt_rows,
            Self::Shared { rows } => rows.saturating_sub(new_tokens),
        }
    }

    /// Most tokens of an answer to a prompt of `prompt_rows`.
    pub fn max_new_tokens(&self, prompt_rows: usize) -> usize {
        match *self {
            Self::Apart { new_tokens, .. } => new_tokens,
            Self::Shared { rows } => rows.saturating_sub(prompt_rows),
        }
    }
}

impl ModelProfile {
    /// Whether `name` is the backbone's own name.
    pub fn is_named(&self, name: &AdapterName) -> bool {
        self.name == name.as_str()
    }
}
