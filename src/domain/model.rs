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
    /// Most rows (prompt tokens and virtual tokens) of one prompt.
    pub max_prompt_rows: usize,
    /// Most tokens that one sequence may generate.
    pub max_new_tokens: usize,
}

impl ModelProfile {
    /// Whether `name` is the backbone's own name.
    pub fn is_named(&self, name: &AdapterName) -> bool {
        self.name == name.as_str()
    }
}
