//! Where an adapter starts: P from a text, the vocabulary, chance or another adapter; A uniform, B zero (Shi and Lipani 2024).

use std::{convert::Infallible, path::PathBuf, str::FromStr};

use super::{
    backbone::Backbone,
    error::TrainError,
    order::Draws,
    parameters::{AdapterShape, Parameters, Tensors},
};
use crate::{
    adapter::{AdapterWeights, Task, Update},
    tokenizer::{Tokenizer, TokenizerError},
};

/// Why an adapter can't start so.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The text has no tokens.
    #[error("--init-from text:… needs some text")]
    NoText,
    /// The text can't be tokenised.
    #[error("--init-from: {0}")]
    Text(#[from] TokenizerError),
    /// The other adapter is of another model.
    #[error(
        "--init-from: that adapter is {found} numbers wide and the model {hidden}: it belongs to another model"
    )]
    Width {
        /// The adapter's.
        found: usize,
        /// The model's.
        hidden: usize,
    },
    /// The other adapter has another rank.
    #[error(
        "--init-from: that adapter has rank {found}: train with --rank {found}, or start from another one"
    )]
    Rank {
        /// The adapter's.
        found: usize,
    },
    /// The other adapter is of another kind.
    #[error("--init-from takes adapters of the methods dept and pt, and that one is ADePT's")]
    Kind,
}

/// Where P starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// The token embeddings of a text, again and again until P is full.
    Text(String),
    /// Embeddings of tokens drawn from the vocabulary.
    Vocabulary,
    /// Uniform in -0.5..0.5.
    Random,
    /// Another adapter, found at a path or by name.
    Adapter(PathBuf),
}

impl FromStr for Start {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.strip_prefix("text:")) {
            (_, Some(text)) => Self::Text(text.to_owned()),
            ("vocabulary" | "vocab", _) => Self::Vocabulary,
            ("random", _) => Self::Random,
            _ => Self::Adapter(text.into()),
        })
    }
}

/// The parameters before the first step. `other` is the adapter that [`Start::Adapter`] names.
///
/// # Errors
/// When there is no text, or the other adapter does not fit.
pub fn start(
    shape: AdapterShape,
    how: &Start,
    seed: u64,
    (backbone, tokenizer): (&Backbone, &Tokenizer),
    other: Option<&AdapterWeights>,
) -> Result<Parameters, TrainError> {
    let mut values = Tensors::zeros(&shape);
    let mut draws = Draws::new(seed ^ 0x5EED);
    let spread = 1.0 / (shape.rank.max(1) as f32).sqrt();
    values.a.iter_mut().for_each(|value| *value = spread * draws.signed());
    let (m, d) = (shape.prompt_length, shape.hidden);
    match how {
        Start::Text(text) => {
            let ids = tokenizer.encode_bare(text).map_err(InitError::Text)?;
            if ids.is_empty() {
                return Err(InitError::NoText.into());
            }
            values.prompt = backbone.token_rows(&tiled(&ids, m))?;
        }
        Start::Vocabulary => {
            let vocabulary = tokenizer.vocab_size();
            let ids: Vec<u32> = (0..m).map(|_| draws.below(vocabulary) as u32).collect();
            values.prompt = backbone.token_rows(&ids)?;
        }
        Start::Random => values.prompt.iter_mut().for_each(|value| *value = 0.5 * draws.signed()),
        Start::Adapter(_) => {
            if let Some(other) = other {
                transfer(&mut values, &shape, backbone.task(), other)?;
            }
        }
    }
    debug_assert_eq!(values.prompt.len(), m * d, "P is full");
    Ok(Parameters { shape, values })
}

/// `ids` again and again, `count` of them.
fn tiled(ids: &[u32], count: usize) -> Vec<u32> {
    ids.iter().copied().cycle().take(count).collect()
}

/// The other's rows of P, again and again; its pair, with the rows of A that the same tokens read.
fn transfer(
    values: &mut Tensors,
    shape: &AdapterShape,
    task: Task,
    other: &AdapterWeights,
) -> Result<(), InitError> {
    let d = shape.hidden;
    if other.hidden() != d {
        return Err(InitError::Width { found: other.hidden(), hidden: d });
    }
    if other.prompt_length() > 0 {
        let rows = other.prompt().data().chunks_exact(d).cycle();
        values.prompt = rows.take(shape.prompt_length).flatten().copied().collect();
    }
    let pair = match other.update() {
        Update::LowRank(pair) => pair,
        Update::None => return Ok(()),
        Update::Adept(_) => return Err(InitError::Kind),
    };
    if pair.rank() != shape.rank {
        return Err(InitError::Rank { found: pair.rank() });
    }
    let (ours, theirs) = (shape.max_length, pair.max_length());
    let common = ours.min(theirs);
    // A decoder-only model's texts end at the last row, a T5's begin at the first.
    let (to, from) = match task {
        Task::Seq2SeqLm => (0, 0),
        Task::CausalLm => (ours - common, theirs - common),
    };
    let (r, factor) = (shape.rank, pair.scale() / shape.scale());
    let rows = &pair.a().data()[from * r..(from + common) * r];
    values.a[to * r..(to + common) * r]
        .iter_mut()
        .zip(rows)
        .for_each(|(ours, theirs)| *ours = factor * theirs);
    values.b.copy_from_slice(pair.b().data());
    Ok(())
}
