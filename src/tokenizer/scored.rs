//! Gemma's and the first Llamas' kind of tokenizer from a bare vocabulary: sentencepiece's pairs over characters, with bytes
//! for what no piece covers. There is no list of merges: a token's score says when the pair that makes it is merged.

use tokenizers::{
    Tokenizer,
    decoders::{
        DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip,
    },
    models::bpe::{BPE, Vocab},
    normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers},
};

use super::{PieceKind, Pieces};

/// What stands for a space in the pieces.
const SPACE: char = '▁';

/// A vocabulary of scored pairs, as files other than `tokenizer.json` carry it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredVocabulary {
    /// The tokens.
    pub pieces: Pieces,
    /// One a token; of two pairs that could be merged, the one that makes the token of the higher score is.
    pub scores: Vec<f64>,
    /// The id of what not even bytes cover.
    pub unknown: usize,
    /// Whether a text is read as if a space came before it.
    pub prefix_space: bool,
}

/// The error says what is wrong with the vocabulary.
pub(super) fn build(vocabulary: &ScoredVocabulary) -> Result<Tokenizer, String> {
    let ScoredVocabulary { pieces, unknown, prefix_space, .. } = vocabulary;
    let ids = pieces.vocabulary()?;
    let merges = merges(vocabulary, &ids)?;
    let model = BPE::builder()
        .vocab_and_merges(ids, merges)
        .unk_token(pieces.get(*unknown)?.text.clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer(*prefix_space)?)).map_err(|e| e.to_string())?;
    tokenizer.with_decoder(Some(decoder(*prefix_space)?));
    pieces.finish(&mut tokenizer)?;
    Ok(tokenizer)
}

fn normalizer(prefix_space: bool) -> Result<Normalizers, String> {
    let space = Replace::new(" ", SPACE.to_string()).map_err(|e| e.to_string())?;
    let mut steps: Vec<NormalizerWrapper> = vec![space.into()];
    if prefix_space {
        steps.insert(0, Prepend::new(SPACE.to_string()).into());
    }
    Ok(Normalizers::new(steps))
}

fn decoder(prefix_space: bool) -> Result<Decoders, String> {
    let space = Replace::new(SPACE.to_string(), " ").map_err(|e| e.to_string())?;
    let mut steps: Vec<DecoderWrapper> =
        vec![DecoderWrapper::Replace(space), ByteFallback::new().into(), Fuse::new().into()];
    if prefix_space {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps))
}

/// Every pair of tokens that makes a token, that of the highest score first.
fn merges(vocabulary: &ScoredVocabulary, ids: &Vocab) -> Result<Vec<(String, String)>, String> {
    let ScoredVocabulary { pieces, scores, .. } = vocabulary;
    if scores.len() != pieces.list.len() {
        return Err(format!("it has {} tokens, but {} scores", pieces.list.len(), scores.len()));
    }
    if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
        return Err(format!("the score of token {i} is {}", scores[i]));
    }
    let mut ranked = Vec::new();
    for (piece, score) in pieces.list.iter().zip(scores).filter(|(p, _)| p.kind == PieceKind::Normal) {
        let first = ranked.len();
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                ranked.push((score, (l, r), left, right));
            }
        }
        ranked[first..].sort_by_key(|&(_, pair, ..)| pair);
    }
    // Stable, so that the pairs of one token keep their order.
    ranked.sort_by(|a, b| b.0.total_cmp(a.0));
    Ok(ranked.into_iter().map(|(.., left, right)| (left.to_owned(), right.to_owned())).collect())
}
