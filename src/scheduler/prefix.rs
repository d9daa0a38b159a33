//! K/V rows that are there already: a soft prompt's, and those of a text that came before.
//!
//! In a decoder-only model the rows of a block depend on the generation, on the text up to the block's end and on
//! nothing else; the soft prompt's on the generation alone, so all of its requests share them. A low-rank update depends
//! on the prompt's length too (row `s - n + j`), so then the length is part of the key. An encoder reads in both
//! directions: what it makes of a prompt can be used again for the very same prompt only.
//!
//! Text is shared inside a tenant, never across tenants: how fast an answer comes must not tell what another one asked.

use std::{
    collections::{HashMap, HashSet},
    sync::Weak,
};

use sha2::{Digest, Sha256};

use super::{NewSequence, PromptPath, Sequence, SequenceId};
use crate::{
    adapter::Generation,
    kv::{BlockId, BlockKey, BlockPool},
};

/// Owner of what the bare backbone computes.
const BACKBONE: u64 = 0;

/// Generations that are looked after at each admission, to see whether they are still there.
const SWEPT: usize = 2;

/// Names of a sequence's blocks.
#[derive(Debug, Default)]
pub(super) struct PrefixKeys {
    /// Of the blocks, in order, as far as they are full (an encoder's: to the last).
    blocks: Vec<BlockKey>,
    /// Of the block in which the soft prompt ends, by the soft prompt's rows alone.
    head: Option<BlockKey>,
    /// Blocks that were given their name, or found by it.
    named: usize,
}

/// Rows that are there already.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hit {
    pub blocks: Vec<BlockId>,
    pub rows: usize,
}

/// What a look at the cache found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These rows; perhaps none.
    Rows(Hit),
    /// A running sequence computes rows that would be of use: it is worth waiting for.
    InWork(SequenceId),
}

/// Who computes which rows, and whose rows are kept.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    in_work: HashMap<BlockKey, SequenceId>,
    owners: Vec<(u64, Weak<Generation>)>,
    known: HashSet<u64>,
    next_swept: usize,
    /// Prompt rows that were looked up.
    pub queries: u64,
    /// Those that were found.
    pub hits: u64,
}

impl PrefixKeys {
    /// The names of what the prompt of `request` fills.
    pub fn of(request: &NewSequence, path: PromptPath, block_size: usize) -> Self {
        match path {
            PromptPath::Encoder { .. } => Self::encoded(request, block_size),
            PromptPath::Decoder => Self::causal(request, block_size),
        }
    }

    /// An encoder's output: all of it or nothing.
    fn encoded(request: &NewSequence, block_size: usize) -> Self {
        let owner = owner(request);
        let digest = salted(Sha256::new_with_prefix(owner.to_le_bytes()), request);
        let mut digest: [u8; 32] = update(digest, &request.prompt).finalize().into();
        let count = request.prompt_rows().div_ceil(block_size);
        let named = (0..count as u32).map(|index| {
            digest[28..].copy_from_slice(&index.to_le_bytes());
            BlockKey { owner, digest }
        });
        Self { blocks: named.collect(), head: None, named: 0 }
    }

    fn causal(request: &NewSequence, block_size: usize) -> Self {
        let (owner, m) = (owner(request), request.virtual_tokens());
        let mut keys = Self::default();
        for index in 0..request.prompt_rows() / block_size {
            keys.push_block(request, &[], block_size, index);
        }
        if m % block_size > 0 {
            let before = keys.digest_before(m / block_size);
            let digest = Sha256::new_with_prefix(before).chain_update(b"head").finalize().into();
            keys.head = Some(BlockKey { owner, digest });
        }
        keys
    }

    /// Names the full block behind those that have names.
    fn push_block(&mut self, request: &NewSequence, answer: &[u32], block_size: usize, index: usize) {
        let (owner, m) = (owner(request), request.virtual_tokens());
        let (start, end) = (index * block_size, (index + 1) * block_size);
        let mut digest = Sha256::new_with_prefix(self.digest_before(index)).chain_update(owner.to_le_bytes());
        if end > m {
            if start <= m {
                digest = salted(digest, request);
            }
            // (text tokens of the block), the prompt's and then generated ones
            let text = start.saturating_sub(m)..end - m;
            let n = request.prompt.len();
            let prompt = &request.prompt[text.start.min(n)..text.end.min(n)];
            let behind = &answer[text.start.saturating_sub(n)..text.end.saturating_sub(n)];
            digest = update(update(digest, prompt), behind);
        }
        self.blocks.push(BlockKey { owner, digest: digest.finalize().into() });
    }

    fn digest_before(&self, index: usize) -> [u8; 32] {
        index.checked_sub(1).map_or([0; 32], |before| self.blocks[before].digest)
    }
}

/// Mixes in what text rows depend on beside the text: whose it is, and the prompt's length where that moves delta rows.
fn salted(digest: Sha256, request: &NewSequence) -> Sha256 {
    let tenant = request.tenant.as_str();
    let length = request.adapter.as_ref().filter(|lease| lease.weights().updates_tokens());
    let length = length.map_or(0, |_| request.prompt.len() as u64);
    digest
        .chain_update((tenant.len() as u64).to_le_bytes())
        .chain_update(tenant)
        .chain_update(length.to_le_bytes())
}

fn update(mut digest: Sha256, tokens: &[u32]) -> Sha256 {
    for token in tokens {
        digest.update(token.to_le_bytes());
    }
    digest
}

fn owner(request: &NewSequence) -> u64 {
    request.adapter.as_ref().map_or(BACKBONE, |lease| lease.id())
}

impl PrefixCache {
    /// What is there of the rows that `sequence` has to compute. Rows whose logits are wanted are left to compute: the last
    /// one's, and those that score tokens.
    pub fn look_up(&self, sequence: &Sequence, pool: &BlockPool) -> Found {
        let keys = &sequence.keys;
        let mut blocks: Vec<BlockId> = keys.blocks.iter().map_while(|key| pool.find(key)).collect();
        let missing = keys.blocks.get(blocks.len());
        if let Some(&producer) = missing.and_then(|key| self.in_work.get(key)) {
            return Found::InWork(producer);
        }
        if !sequence.causal {
            let complete = missing.is_none() && !blocks.is_empty();
            let rows = if complete { sequence.prompt_rows() } else { 0 };
            blocks.truncate(pool.blocks_needed(rows));
            return Found::Rows(Hit { blocks, rows });
        }
        let size = pool.block_size();
        let mut rows = blocks.len() * size;
        let m = sequence.virtual_tokens();
        if let Some(head) = keys.head.filter(|_| rows < m && rows == m / size * size) {
            if let Some(block) = pool.find(&head) {
                blocks.push(block);
                rows = m;
            } else if let Some(&producer) = self.in_work.get(&head) {
                return Found::InWork(producer);
            }
        }
        let scoring = sequence.scoring_rows();
        let first_scored = if scoring.is_empty() { usize::MAX } else { scoring.start };
        rows = rows.min(sequence.decoder_rows() - 1).min(first_scored);
        blocks.truncate(pool.blocks_needed(rows));
        Found::Rows(Hit { blocks, rows })
    }

    /// `sequence` starts from `hit` and computes the rest of its prompt.
    pub fn start(&mut self, sequence: &mut Sequence, hit: &Hit, size: usize) {
        let keys = &mut sequence.keys;
        keys.named = if sequence.causal { hit.rows / size } else { hit.blocks.len() };
        for key in keys.blocks.iter().skip(keys.named).chain(&keys.head) {
            self.in_work.entry(*key).or_insert(sequence.request.id);
        }
        if sequence.cached.is_none() {
            sequence.cached = Some(hit.rows);
            self.queries += sequence.prompt_rows() as u64;
            self.hits += hit.rows.min(sequence.prompt_rows()) as u64;
        }
    }

    /// Nobody needs to wait for `sequence` any more: its prompt is done, or it is.
    pub fn settle(&mut self, sequence: &Sequence) {
        for key in sequence.keys.blocks.iter().chain(&sequence.keys.head) {
            if self.in_work.get(key) == Some(&sequence.request.id) {
                self.in_work.remove(key);
            }
        }
    }

    /// Names the blocks that `sequence` has filled since the last time.
    pub fn name(&mut self, sequence: &mut Sequence, pool: &mut BlockPool) {
        let Sequence { request, answer, computed, prompt, past, keys, causal, .. } = sequence;
        let size = pool.block_size();
        let (table, full) = if *causal { (&*past, *computed / size) } else { (&*prompt, keys.blocks.len()) };
        let m = request.virtual_tokens();
        if let Some(head) = keys.head.filter(|_| *computed >= m && keys.named * size <= m) {
            pool.name(table, m / size, head);
        }
        for index in keys.named..full {
            if index == keys.blocks.len() {
                keys.push_block(request, answer, size, index);
            }
            pool.name(table, index, keys.blocks[index]);
        }
        keys.named = keys.named.max(full);
        self.remember(request);
    }

    /// Forgets the rows of generations that are no longer there, a few looks at a time.
    pub fn sweep(&mut self, pool: &mut BlockPool) {
        let mut dead = HashSet::new();
        for _ in 0..SWEPT.min(self.owners.len()) {
            self.next_swept = (self.next_swept + 1) % self.owners.len().max(1);
            if self.owners[self.next_swept].1.strong_count() == 0 {
                let (owner, _) = self.owners.swap_remove(self.next_swept);
                self.known.remove(&owner);
                dead.insert(owner);
            }
        }
        if !dead.is_empty() {
            pool.forget(&dead);
        }
    }

    fn remember(&mut self, request: &NewSequence) {
        let Some(lease) = &request.adapter else { return };
        if self.known.insert(lease.id()) {
            self.owners.push((lease.id(), lease.watch()));
        }
    }
}
