//! What a connection is doing, and since when.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use axum::http::Version;

use super::response::Handover;
use crate::config::ConnectionLimits;

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works, or it waits no longer than it may.
    Sound,
    /// It has done nothing for too long: it may be closed politely.
    Idle,
    /// It keeps the server waiting: it is to be dropped.
    Stuck(&'static str),
}

/// Shared between a connection's socket, its requests and the task that watches it.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Notes>);

#[derive(Debug)]
struct Notes {
    /// Requests whose answers are not at their end.
    in_flight: usize,
    /// Whether there has been a request.
    used: bool,
    http2: bool,
    /// The last end of a request, or the connection's start.
    quiet_since: Instant,
    /// The first byte of a head that is not whole yet.
    head_since: Option<Instant>,
    /// The first write that the client has left no room for.
    blocked_since: Option<Instant>,
    /// Answers of more than one part.
    handovers: Vec<Weak<Handover>>,
}

impl Activity {
    pub fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Notes {
            in_flight: 0,
            used: false,
            http2: false,
            quiet_since: now,
            head_since: None,
            blocked_since: None,
            handovers: Vec::new(),
        })))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come whole; it is in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>, version: Version) -> InFlight {
        let mut notes = self.notes();
        notes.in_flight += 1;
        notes.used = true;
        notes.http2 |= version == Version::HTTP_2;
        notes.head_since = None;
        InFlight(Arc::clone(self))
    }

    /// Whether no request is in flight on a connection that may be HTTP/1.
    pub fn is_between_requests(&self) -> bool {
        let notes = self.notes();
        notes.in_flight == 0 && !notes.http2
    }

    /// Bytes have come.
    pub fn has_read(&self, now: Instant) {
        let mut notes = self.notes();
        if notes.in_flight == 0 {
            notes.head_since.get_or_insert(now);
        }
    }

    /// The client has left no room for a write.
    pub fn is_blocked(&self, now: Instant) {
        self.notes().blocked_since.get_or_insert(now);
    }

    /// A write went through.
    pub fn has_written(&self) {
        self.notes().blocked_since = None;
    }

    /// Watches whether the parts of an answer are taken.
    pub fn watch(&self, handover: &Arc<Handover>) {
        let mut notes = self.notes();
        if notes.http2 {
            notes.handovers.push(Arc::downgrade(handover));
        }
    }

    /// What is to become of the connection. On HTTP/2 one stream can stall while its connection does not: such an answer
    /// is ended here. On HTTP/1 the socket tells, and tells slow clients from those that do not read.
    pub fn judge(&self, now: Instant, limits: &ConnectionLimits) -> Verdict {
        let over =
            |since: Option<Instant>, limit| since.is_some_and(|since| now.duration_since(since) >= limit);
        let handovers = self.live_handovers();
        // Outside the lock: what an answer holds ends with it, which notes that a request is over.
        for handover in handovers {
            handover.end_if_stalled(now, limits.stall_timeout);
        }
        let notes = self.notes();
        if over(notes.blocked_since, limits.stall_timeout) {
            return Verdict::Stuck("its client does not read");
        }
        if notes.in_flight > 0 {
            return Verdict::Sound;
        }
        if !notes.used && over(Some(notes.quiet_since), limits.head_timeout) {
            return Verdict::Stuck("no request has come");
        }
        if !notes.http2 && over(notes.head_since, limits.head_timeout) {
            return Verdict::Stuck("a request's head comes too slowly");
        }
        if over(Some(notes.quiet_since), limits.idle_timeout) { Verdict::Idle } else { Verdict::Sound }
    }

    /// Requests whose answers are not at their end.
    #[cfg(test)]
    pub fn in_flight(&self) -> usize {
        self.notes().in_flight
    }

    fn live_handovers(&self) -> Vec<Arc<Handover>> {
        let mut notes = self.notes();
        let live: Vec<_> = notes.handovers.iter().filter_map(Weak::upgrade).collect();
        notes.handovers = live.iter().map(Arc::downgrade).collect();
        live
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl InFlight {
    pub fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut notes = self.0.notes();
        notes.in_flight -= 1;
        notes.quiet_since = Instant::now();
    }
}
