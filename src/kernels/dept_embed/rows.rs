/// The row of A that a token takes its update from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaRow {
    /// The adapter's slot in the batch.
    pub slot: u32,
    /// The row of A: the token's index in the padded sequence (see `DeltaRule` of the backbones).
    pub index: u32,
}

/// Where one row of the batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Row `index` of the slot's prompt P, as it is.
    Prompt {
        /// The adapter's slot in the batch.
        slot: u32,
        /// The row of P.
        index: u32,
    },
    /// A token's embedding, with its adapter's low-rank update where it has one.
    Token {
        /// The token id.
        token: u32,
        /// The update; `None` for the bare backbone, plain prompt tuning and generated tokens.
        delta: Option<DeltaRow>,
    },
}

/// The rows of a batch, packed as three words each: `[token or prompt row, slot, delta row]`.
/// This is what a device kernel reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowTable {
    packed: Vec<u32>,
}

impl RowTable {
    /// Words a row.
    pub const WORDS: usize = 3;
    /// In the third word: this is a prompt row.
    const PROMPT: u32 = u32::MAX;
    /// In the third word: this is a token row without an update.
    const PLAIN: u32 = u32::MAX - 1;

    /// An empty table with room for `rows`.
    pub fn with_capacity(rows: usize) -> Self {
        Self { packed: Vec::with_capacity(rows * Self::WORDS) }
    }

    /// Appends a row.
    pub fn push(&mut self, row: Row) {
        self.packed.extend_from_slice(&match row {
            Row::Prompt { slot, index } => [index, slot, Self::PROMPT],
            Row::Token { token, delta: None } => [token, 0, Self::PLAIN],
            Row::Token { token, delta: Some(DeltaRow { slot, index }) } => [token, slot, index],
        });
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.packed.len() / Self::WORDS
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Drops all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.packed.clear();
    }

    /// The packed words. `(rows, 3)`
    pub fn packed(&self) -> &[u32] {
        &self.packed
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        self.packed.chunks_exact(Self::WORDS).map(Self::unpack)
    }

    /// Reads one packed row.
    pub(super) fn unpack(words: &[u32]) -> Row {
        let (first, slot, third) = (words[0], words[1], words[2]);
        match third {
            Self::PROMPT => Row::Prompt { slot, index: first },
            Self::PLAIN => Row::Token { token: first, delta: None },
            index => Row::Token { token: first, delta: Some(DeltaRow { slot, index }) },
        }
    }
}
