//! T5's tokenizer from a bare vocabulary, built as the published `tokenizer.json` is.

use tokenizers::{
    AddedToken, Tokenizer,
    decoders::metaspace::Metaspace,
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        PreTokenizerWrapper, metaspace::PrependScheme, sequence::Sequence, whitespace::WhitespaceSplit,
    },
    processors::template::TemplateProcessing,
};

const SPACE: char = '▁';

/// A SentencePiece Unigram vocabulary, as files other than `tokenizer.json` carry it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnigramVocabulary {
    /// The pieces; the index is the id.
    pub tokens: Vec<String>,
    /// Their log-probabilities.
    pub scores: Vec<f64>,
    /// Ids that are matched in text as a whole and never spelt out by decoding.
    pub specials: Vec<usize>,
    /// The id of what no piece covers.
    pub unknown: usize,
    /// The id that encoding appends to every text.
    pub end: Option<usize>,
    /// SentencePiece's normaliser table; empty for none.
    pub charsmap: Vec<u8>,
    /// Whether a text is read as if a space came before it.
    pub prefix_space: bool,
    /// Whether runs of white space count as one space.
    pub collapse_spaces: bool,
}

/// The error says what is wrong with the vocabulary.
pub(super) fn build(vocabulary: &UnigramVocabulary) -> Result<Tokenizer, String> {
    let mut tokenizer = Tokenizer::new(unigram(vocabulary)?);
    if !vocabulary.charsmap.is_empty() {
        let normalizer =
            Precompiled::from(&vocabulary.charsmap).map_err(|e| format!("the normaliser table: {e}"))?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
    }
    let prepend = if vocabulary.prefix_space { PrependScheme::Always } else { PrependScheme::Never };
    let metaspace = Metaspace::new(SPACE, prepend, true);
    let mut splitters = vec![PreTokenizerWrapper::from(metaspace.clone())];
    if vocabulary.collapse_spaces {
        splitters.insert(0, WhitespaceSplit.into());
    }
    tokenizer.with_pre_tokenizer(Some(Sequence::new(splitters)));
    tokenizer.with_decoder(Some(metaspace));
    let specials: Vec<_> = vocabulary
        .specials
        .iter()
        .map(|&id| Ok(AddedToken::from(token(vocabulary, id)?, true)))
        .collect::<Result<_, String>>()?;
    tokenizer.add_special_tokens(specials).map_err(|e| e.to_string())?;
    if let Some(end) = vocabulary.end {
        tokenizer.with_post_processor(Some(append(token(vocabulary, end)?, end)?));
    }
    Ok(tokenizer)
}

fn token(vocabulary: &UnigramVocabulary, id: usize) -> Result<&str, String> {
    let tokens = &vocabulary.tokens;
    let token =
        tokens.get(id).ok_or_else(|| format!("it names the id {id}, but has {} tokens", tokens.len()))?;
    Ok(token)
}

fn unigram(vocabulary: &UnigramVocabulary) -> Result<Unigram, String> {
    let UnigramVocabulary { tokens, scores, unknown, .. } = vocabulary;
    token(vocabulary, *unknown)?;
    if scores.len() != tokens.len() {
        return Err(format!("it has {} tokens, but {} scores", tokens.len(), scores.len()));
    }
    if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
        return Err(format!("the score of token {i} is {}", scores[i]));
    }
    if let Some(i) = tokens.iter().position(String::is_empty) {
        return Err(format!("token {i} is empty"));
    }
    let pairs = tokens.iter().cloned().zip(scores.iter().copied()).collect();
    Unigram::from(pairs, Some(*unknown), false).map_err(|e| e.to_string())
}

fn append(token: &str, id: usize) -> Result<TemplateProcessing, String> {
    let id = u32::try_from(id).map_err(|_| format!("it names the id {id}"))?;
    TemplateProcessing::builder()
        .try_single(format!("$A {token}"))
        .map_err(|e| e.to_string())?
        .special_tokens(vec![(token.to_owned(), id)])
        .build()
        .map_err(|e| e.to_string())
}
