//! From a request's grammar to one that can be followed, or to what is wrong with it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use llguidance::{Matcher, ParserFactory};

use super::{
    CompileError, blame,
    guide::follow,
    helper::{self, Helper},
    source,
    vocabulary::{Alphabet, LOST_SPACE_OF_BYTES, Vocabulary},
};
use crate::{domain::Grammar, tokenizer::Beginning};

/// Bytes of a schema from which on it counts as large.
const LARGE_SCHEMA: usize = 4096;

/// A grammar that the vocabulary can follow. Sequences share it; each has a matcher of its own, so that what one of them has
/// looked at changes nothing for another.
pub struct Compiled {
    vocabulary: Arc<Vocabulary>,
    helper: Helper,
    /// Before the first token. Where the beginning of a text loses a space, that space is still to come.
    fresh: Matcher,
    /// The same behind that space.
    behind_space: Option<Matcher>,
    /// What the first token may be.
    first: Vec<u32>,
    /// The end tokens.
    end: Vec<u32>,
    large: bool,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

impl Compiled {
    /// Compiles `grammar` for `vocabulary`: milliseconds of computing as a rule, bounded by the limits.
    pub(super) fn new(
        grammar: &Grammar,
        vocabulary: &Arc<Vocabulary>,
        helper: &Helper,
    ) -> Result<Self, CompileError> {
        check_choices(grammar, vocabulary)?;
        blame::check_regex(grammar)?;
        blame::check_literals(grammar, &vocabulary.alphabet)?;
        let loses_space = vocabulary.spelling.beginning != Beginning::AsIs;
        let fresh = matcher(vocabulary.factory(), grammar, &vocabulary.alphabet, loses_space)
            .map_err(|reason| refused(grammar, vocabulary, &reason))?;
        // Where nothing can come behind the space, no text can.
        let behind_space = if loses_space {
            follow(fresh.deep_clone(), vocabulary.lost_space())
                .map_err(|_| unwritable(grammar, vocabulary, true))?
        } else {
            None
        };
        let mut compiled = Self {
            vocabulary: Arc::clone(vocabulary),
            helper: helper.clone(),
            fresh,
            behind_space,
            first: Vec::new(),
            end: bits(&vocabulary.eos, vocabulary.spelling.words.len()),
            large: matches!(grammar, Grammar::JsonSchema(schema) if schema.as_str().len() > LARGE_SCHEMA),
        };
        compiled.first = compiled.beginnings();
        if compiled.first.iter().any(|&word| word != 0) {
            return Ok(compiled);
        }
        Err(unwritable(grammar, vocabulary, loses_space))
    }

    /// The tokens that a text may begin with, or end at once.
    fn beginnings(&self) -> Vec<u32> {
        let spelling = &self.vocabulary.spelling;
        let size = spelling.words.len();
        let all = |matcher: &Matcher| {
            helper::mask(matcher.deep_clone()).map(|ready| ready.mask).unwrap_or_default()
        };
        if spelling.beginning == Beginning::AsIs {
            return all(&self.fresh);
        }
        // Nothing can come behind the space where the empty text is the only one.
        let Some(behind_space) = &self.behind_space else { return self.end.clone() };
        let bare = all(behind_space);
        if bare.is_empty() {
            // A space could come, and nothing behind it.
            return bare;
        }
        let holds =
            |mask: &[u32], id: u32| mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
        let spaced = all(&self.fresh);
        let begins = |&id: &u32| {
            let as_it_is = spelling.loses_none(id) || self.vocabulary.eos.contains(&id);
            (as_it_is && holds(&bare, id)) || (spelling.loses_one_space(id) && holds(&spaced, id))
        };
        let ids: Vec<u32> = (0..size as u32).filter(begins).collect();
        bits(&ids, size)
    }

    /// The tokens that a text may begin with.
    pub(super) fn first_mask(&self) -> &[u32] {
        &self.first
    }

    /// The end tokens.
    pub(super) fn end_mask(&self) -> &[u32] {
        &self.end
    }

    pub(super) fn helper(&self) -> &Helper {
        &self.helper
    }

    /// A matcher of its own at the start of a text that begins with `token`.
    pub(super) fn fork(&self, token: u32) -> Matcher {
        let spaced = self.vocabulary.spelling.loses_one_space(token);
        let start = if spaced { &self.fresh } else { self.behind_space.as_ref().unwrap_or(&self.fresh) };
        start.deep_clone()
    }

    /// Whether the first token is better taken on the helper's thread: a matcher of a large schema takes milliseconds to copy and
    /// to move. Not where no end token could follow.
    pub(super) fn begins_slowly(&self) -> bool {
        self.large && self.end.iter().any(|&word| word != 0)
    }
}

/// A matcher at the start, or what llguidance has against the grammar.
fn matcher(
    factory: &ParserFactory,
    grammar: &Grammar,
    alphabet: &Alphabet,
    loses_space: bool,
) -> Result<Matcher, String> {
    let parser = factory.create_parser(source::top_level(grammar, alphabet, loses_space));
    let parser = parser.map_err(|error| format!("{error:#}"))?;
    let matcher = Matcher::new(Ok(parser));
    match matcher.get_error() {
        None => Ok(matcher),
        Some(error) => Err(error),
    }
}

/// What is wrong with a grammar that llguidance refuses.
fn refused(grammar: &Grammar, vocabulary: &Vocabulary, reason: &str) -> CompileError {
    let panicked = reason.starts_with("panic");
    if panicked {
        tracing::warn!(reason, "a grammar made its compiler panic");
    }
    if let (Grammar::Regex(_), Alphabet::Some(_)) = (grammar, &vocabulary.alphabet) {
        // It may be that nothing is left of it only for want of characters.
        if matcher(vocabulary.byte_factory(), grammar, &Alphabet::All, false).is_ok() {
            return unwritable(grammar, vocabulary, false);
        }
    }
    let reason = if panicked { "it can't be compiled" } else { reason };
    blame::refused(grammar, reason)
}

/// Which characters are wanted at the start of the text, where the vocabulary has none of them.
fn unwritable(grammar: &Grammar, vocabulary: &Vocabulary, loses_space: bool) -> CompileError {
    let found = matcher(vocabulary.byte_factory(), grammar, &Alphabet::All, loses_space);
    let matcher = match found {
        Ok(matcher) if loses_space => follow(matcher, LOST_SPACE_OF_BYTES).ok().flatten(),
        other => other.ok(),
    };
    let mask = matcher.and_then(|matcher| helper::mask(matcher).ok()).map(|ready| ready.mask);
    let mask = mask.unwrap_or_default();
    let ascii = (0..128_u8)
        .filter(|&byte| mask.get(usize::from(byte) / 32).is_some_and(|w| w >> (byte % 32) & 1 == 1));
    let wanted: BTreeSet<char> = ascii.map(char::from).collect();
    let literals = blame::regex_literals(grammar);
    let missing: BTreeSet<char> = wanted
        .into_iter()
        .chain(literals)
        .filter(|&c| !vocabulary.alphabet.missing(c.encode_utf8(&mut [0; 4])).is_empty())
        .collect();
    if missing.is_empty() && vocabulary.alphabet == Alphabet::All {
        return CompileError::Nothing;
    }
    CompileError::Unwritable { place: None, characters: missing }
}

/// Whether every text of a choice can be written.
fn check_choices(grammar: &Grammar, vocabulary: &Vocabulary) -> Result<(), CompileError> {
    let Grammar::Choice(choices) = grammar else { return Ok(()) };
    for (at, text) in choices.texts().iter().enumerate() {
        let missing = vocabulary.alphabet.missing(text);
        if !missing.is_empty() {
            return Err(CompileError::Unwritable { place: Some(format!("[{at}]")), characters: missing });
        }
    }
    Ok(())
}

/// A mask of `size` tokens that allows `ids`.
fn bits(ids: &[u32], size: usize) -> Vec<u32> {
    let mut mask = vec![0; size.div_ceil(32)];
    for &id in ids {
        mask[id as usize / 32] |= 1 << (id % 32);
    }
    mask
}
