use tokenizers::{AddedToken, Tokenizer, models::bpe::Vocab, processors::template::TemplateProcessing};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Text, made by merging.
    Normal,
    /// A single byte, for text that no piece covers.
    Byte,
    /// Matched in text as a whole; says nothing when decoded.
    Special,
    /// Matched in text as a whole.
    Added,
    /// A row without a token.
    Unused,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its text, in the vocabulary's own alphabet.
    pub text: String,
    /// What it is for.
    pub kind: PieceKind,
}

/// The tokens of a vocabulary whose pieces are merged from pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// The index is the id.
    pub list: Vec<Piece>,
    /// The id that encoding puts before every text.
    pub begin: Option<usize>,
    /// The id that encoding puts behind every text.
    pub end: Option<usize>,
}

impl Pieces {
    /// The token of an id.
    pub(super) fn get(&self, id: usize) -> Result<&Piece, String> {
        let missing = || format!("it names the id {id}, but has {} tokens", self.list.len());
        self.list.get(id).ok_or_else(missing)
    }

    /// The ids of all tokens in use.
    pub(super) fn vocabulary(&self) -> Result<Vocab, String> {
        let mut vocabulary = Vocab::with_capacity(self.list.len());
        for (id, piece) in self.list.iter().enumerate() {
            if piece.kind == PieceKind::Unused {
                continue;
            }
            let id = u32::try_from(id).map_err(|_| "it has more tokens than ids".to_owned())?;
            if let Some(first) = vocabulary.insert(piece.text.clone(), id) {
                return Err(format!("the tokens {first} and {id} are both '{}'", piece.text));
            }
        }
        Ok(vocabulary)
    }

    /// Tells the tokenizer which tokens are matched in text as a whole, and which stand around every text.
    pub(super) fn finish(&self, tokenizer: &mut Tokenizer) -> Result<(), String> {
        let of_kind = |kind: PieceKind, special: bool| {
            let pieces = self.list.iter().filter(move |piece| piece.kind == kind);
            let added =
                pieces.map(move |piece| AddedToken::from(piece.text.clone(), special).normalized(false));
            added.collect::<Vec<_>>()
        };
        tokenizer.add_special_tokens(of_kind(PieceKind::Special, true)).map_err(|e| e.to_string())?;
        tokenizer.add_tokens(of_kind(PieceKind::Added, false)).map_err(|e| e.to_string())?;
        if self.begin.is_none() && self.end.is_none() {
            return Ok(());
        }
        let text = |id: Option<usize>| id.map(|id| self.get(id).map(|piece| piece.text.as_str())).transpose();
        let (begin, end) = (text(self.begin)?, text(self.end)?);
        let parts: Vec<&str> = [begin, Some("$A"), end].into_iter().flatten().collect();
        let ids = [(begin, self.begin), (end, self.end)];
        let named = ids.iter().filter_map(|&(text, id)| Some((text?.to_owned(), u32::try_from(id?).ok()?)));
        let template = TemplateProcessing::builder()
            .try_single(parts)
            .map_err(|e| e.to_string())?
            .special_tokens(named.collect::<Vec<_>>())
            .build()
            .map_err(|e| e.to_string())?;
        tokenizer.with_post_processor(Some(template));
        Ok(())
    }
}
