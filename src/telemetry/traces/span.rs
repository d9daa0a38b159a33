use std::{
    borrow::Cow,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::context::{SpanId, TraceId};

/// What an attribute can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A list of texts.
    Texts(Vec<Cow<'static, str>>),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

/// A name and what it is.
pub type Attribute = (Cow<'static, str>, Value);

/// Where the work is done, seen from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Inside.
    Internal,
    /// An answer to somebody else's request.
    Server,
}

/// A piece of work that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace that it is of.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// Whose part it is.
    pub parent: Option<SpanId>,
    /// The caller's `tracestate`; empty where there is none.
    pub state: String,
    /// What was done.
    pub name: Cow<'static, str>,
    /// For whom.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since 1970.
    pub began: u64,
    /// When it ended, likewise.
    pub ended: u64,
    /// What else is to say.
    pub attributes: Vec<Attribute>,
    /// Why it failed, where it did and the fault is the server's.
    pub error: Option<String>,
}

/// The calendar's time of moments of the steady clock.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    steady: Instant,
    nanos: u64,
}

impl Calendar {
    /// As the clocks stand now: spans of one request never contradict each other, whatever is done to the calendar meanwhile.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { steady: Instant::now(), nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// When it was set.
    pub fn began(&self) -> Instant {
        self.steady
    }

    /// `moment` in nanoseconds since 1970.
    pub fn nanos(&self, moment: Instant) -> u64 {
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match moment.checked_duration_since(self.steady) {
            Some(after) => self.nanos.saturating_add(nanos(after)),
            None => self.nanos.saturating_sub(nanos(self.steady - moment)),
        }
    }
}
