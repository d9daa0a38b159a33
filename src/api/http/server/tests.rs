use std::{
    pin::Pin,
    task::Context,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::Version,
};
use futures::{stream, task::noop_waker};
use hyper::body::Body as _;

use super::{
    activity::{Activity, Verdict},
    response::Watched,
};
use crate::config::ConnectionLimits;

const LIMITS: ConnectionLimits = ConnectionLimits {
    max_connections: 1,
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    stall_timeout: Duration::from_secs(30),
};

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn stuck(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Stuck(_))
}

#[test]
fn a_connection_must_ask_and_may_then_rest() {
    let start = Instant::now();
    let activity = Activity::new(start);
    assert_eq!(activity.judge(after(start, 9), &LIMITS), Verdict::Sound);
    assert!(stuck(activity.judge(after(start, 10), &LIMITS)));
    drop(activity.begin(Version::HTTP_11));
    let quiet = Instant::now();
    assert_eq!(activity.judge(after(quiet, 74), &LIMITS), Verdict::Sound);
    assert_eq!(activity.judge(after(quiet, 76), &LIMITS), Verdict::Idle);
    activity.has_read(after(quiet, 60));
    activity.has_read(after(quiet, 69));
    assert_eq!(activity.judge(after(quiet, 69), &LIMITS), Verdict::Sound);
    assert!(stuck(activity.judge(after(quiet, 70), &LIMITS)), "more bytes do not make a head younger");
    let in_flight = activity.begin(Version::HTTP_11);
    activity.has_read(after(quiet, 80));
    assert_eq!(activity.judge(after(quiet, 9999), &LIMITS), Verdict::Sound, "a body has its own time");
    drop(in_flight);
}

#[test]
fn http_2_may_talk_between_requests() {
    let start = Instant::now();
    let activity = Activity::new(start);
    drop(activity.begin(Version::HTTP_2));
    activity.has_read(start);
    assert_eq!(activity.judge(after(start, 70), &LIMITS), Verdict::Sound, "it was a ping");
    assert_eq!(activity.judge(after(start, 80), &LIMITS), Verdict::Idle);
}

#[test]
fn a_write_must_go_through_in_time() {
    let start = Instant::now();
    let activity = Activity::new(start);
    let _in_flight = activity.begin(Version::HTTP_11);
    activity.is_blocked(start);
    activity.is_blocked(after(start, 29));
    assert_eq!(activity.judge(after(start, 29), &LIMITS), Verdict::Sound);
    assert!(stuck(activity.judge(after(start, 30), &LIMITS)));
    activity.has_written();
    assert_eq!(activity.judge(after(start, 999), &LIMITS), Verdict::Sound);
}

/// A body of these parts that then waits for ever.
fn body(parts: usize) -> Body {
    let parts = stream::iter((0..parts).map(|_| Ok::<_, std::io::Error>(Bytes::from("x"))));
    Body::from_stream(futures::StreamExt::chain(parts, stream::pending()))
}

fn poll(body: &mut Watched) -> &'static str {
    let waker = noop_waker();
    match Pin::new(body).poll_frame(&mut Context::from_waker(&waker)) {
        std::task::Poll::Pending => "pending",
        std::task::Poll::Ready(Some(Ok(_))) => "part",
        std::task::Poll::Ready(Some(Err(_))) => "error",
        std::task::Poll::Ready(None) => "end",
    }
}

#[test]
fn an_answer_that_is_not_taken_is_ended_and_one_that_is_not_made_is_not() {
    let start = Instant::now();
    let activity = Activity::new(start);
    let mut waits = Watched::new(body(1), activity.begin(Version::HTTP_2));
    let mut stalls = Watched::new(body(2), activity.begin(Version::HTTP_2));
    assert_eq!((poll(&mut waits), poll(&mut waits)), ("part", "pending"));
    assert_eq!(poll(&mut stalls), "part");
    let now = Instant::now();
    assert_eq!(activity.judge(after(now, 29), &LIMITS), Verdict::Sound);
    assert_eq!(activity.in_flight(), 2);
    assert_eq!(activity.judge(after(now, 31), &LIMITS), Verdict::Sound);
    assert_eq!(activity.in_flight(), 1, "what makes the stalled one is gone");
    assert!(!stalls.is_end_stream());
    assert_eq!((poll(&mut stalls), poll(&mut waits)), ("error", "pending"));
    drop(waits);
    assert_eq!(activity.in_flight(), 0);
}

#[test]
fn a_whole_answer_is_over_with_its_last_part() {
    let activity = Activity::new(Instant::now());
    let mut whole = Watched::new(Body::from("x"), activity.begin(Version::HTTP_11));
    assert!(!whole.is_end_stream());
    assert_eq!(poll(&mut whole), "part");
    assert_eq!(activity.in_flight(), 0);
    assert!(whole.is_end_stream());
    assert_eq!(poll(&mut whole), "end");
}
