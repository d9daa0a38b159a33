//! Grammars by content: compiled once, aside, within a time, and kept while they are asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use super::{CompileError, Compiled, UnusableVocabulary, helper::Helper, vocabulary::Vocabulary};
use crate::{
    domain::{Grammar, TenantId},
    tokenizer::Tokenizer,
};

/// Grammars that are kept.
const KEPT: usize = 128;
/// How long a request waits for its grammar.
const PATIENCE: Duration = Duration::from_secs(5);
/// Compilations at once. One that nobody waits for any more goes on to its own end, which the limits bound.
const AT_ONCE: usize = 2;
/// The compiler recurses as deep as a schema or an expression nests.
const STACK: usize = 64 << 20;

/// A tenant's grammar: what one tenant sends is not found by another.
type Key = (TenantId, [u8; 32]);

type Outcome = Result<Arc<Compiled>, CompileError>;

/// A model's grammars. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct Grammars {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tokenizer: Tokenizer,
    /// Rows of logits that are tokens.
    vocab: usize,
    eos: Vec<u32>,
    /// Built when it is first needed: most servers never do.
    tools: OnceLock<Result<(Arc<Vocabulary>, Helper), UnusableVocabulary>>,
    cache: Mutex<Cache>,
    /// Told when a compilation has ended.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<Key, Entry>,
    /// Counts uses.
    clock: u64,
    compiling: usize,
}

#[derive(Debug)]
struct Entry {
    promise: Arc<Promise>,
    used: u64,
}

/// A grammar that is compiled, or will be.
#[derive(Debug, Default)]
struct Promise {
    outcome: Mutex<Option<Outcome>>,
    kept: Condvar,
}

impl Grammars {
    /// Of a model whose first `vocab` rows of logits are tokens of `tokenizer`, and whose texts end with one of `eos`.
    pub fn new(tokenizer: Tokenizer, vocab: usize, eos: Vec<u32>) -> Self {
        let (tools, cache, room) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { tokenizer, vocab, eos, tools, cache, room }) }
    }

    /// The compiled form of what `tenant` asks for. Waits for it: not for a thread that serves others.
    ///
    /// # Errors
    /// What is wrong with the grammar, or with the moment.
    pub fn get(&self, tenant: &TenantId, grammar: &Grammar) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let key = (tenant.clone(), grammar.digest());
        let promise = self.shared.promise(&key, grammar, until)?;
        let mut outcome = lock(&promise.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CompileError::Slow { within: PATIENCE });
            }
            (outcome, _) = promise.kept.wait_timeout(outcome, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// The grammar's entry; where there is none, a thread begins to compile it.
    fn promise(
        self: &Arc<Self>,
        key: &Key,
        grammar: &Grammar,
        until: Instant,
    ) -> Result<Arc<Promise>, CompileError> {
        let mut cache = lock(&self.cache);
        loop {
            if let Some(promise) = cache.find(key) {
                return Ok(promise);
            }
            if cache.compiling < AT_ONCE {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CompileError::Busy);
            }
            (cache, _) = self.room.wait_timeout(cache, left).unwrap_or_else(PoisonError::into_inner);
        }
        let promise = Arc::<Promise>::default();
        let (shared, grammar, kept) = (Arc::clone(self), grammar.clone(), Arc::clone(&promise));
        let compile = move || {
            // It is compiled when this is over, whatever happens in between.
            let ends = Compiling { shared: &shared, promise: &kept };
            ends.keep(shared.compile(&grammar));
        };
        let thread = std::thread::Builder::new().name("grammar-compiler".to_owned()).stack_size(STACK);
        thread.spawn(compile).map_err(|error| UnusableVocabulary::Thread(error.to_string()))?;
        cache.compiling += 1;
        cache.insert(key.clone(), Arc::clone(&promise));
        Ok(promise)
    }

    fn compile(&self, grammar: &Grammar) -> Outcome {
        let (vocabulary, helper) =
            self.tools.get_or_init(|| self.make_tools()).as_ref().map_err(Clone::clone)?;
        Compiled::new(grammar, vocabulary, helper).map(Arc::new)
    }

    fn make_tools(&self) -> Result<(Arc<Vocabulary>, Helper), UnusableVocabulary> {
        let spelling = self.tokenizer.spelling().ok_or(UnusableVocabulary::Decoder)?;
        let vocabulary = Vocabulary::new(spelling, self.vocab, &self.eos)?;
        let helper = Helper::spawn().map_err(|error| UnusableVocabulary::Thread(error.to_string()))?;
        Ok((Arc::new(vocabulary), helper))
    }
}

impl Cache {
    fn find(&mut self, key: &Key) -> Option<Arc<Promise>> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.promise))
    }

    /// Keeps an entry; where there are too many, that one goes which was not asked for the longest.
    fn insert(&mut self, key: Key, promise: Arc<Promise>) {
        if self.entries.len() >= KEPT {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            oldest.map(|key| self.entries.remove(&key));
        }
        self.clock += 1;
        self.entries.insert(key, Entry { promise, used: self.clock });
    }
}

/// A compilation under way.
struct Compiling<'a> {
    shared: &'a Shared,
    promise: &'a Promise,
}

impl Compiling<'_> {
    fn keep(&self, outcome: Outcome) {
        lock(&self.promise.outcome).get_or_insert(outcome);
    }
}

impl Drop for Compiling<'_> {
    fn drop(&mut self) {
        // Nothing is there after a panic.
        self.keep(Err(CompileError::TooComplex { reason: "it can't be compiled".to_owned() }));
        self.promise.kept.notify_all();
        lock(&self.shared.cache).compiling -= 1;
        // All of them: who is woken may find its grammar here by now, and takes no place.
        self.shared.room.notify_all();
    }
}

/// What is locked here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
