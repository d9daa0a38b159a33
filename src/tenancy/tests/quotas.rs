use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::clock::FakeRelativeClock;

use crate::tenancy::{
    QuotaError, Quotas,
    quota::Limits,
    rate::{Clock, Exceeded, Rate},
};

fn n(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

/// Quotas whose time a test moves.
fn quotas(limits: Limits) -> (Arc<Quotas>, FakeRelativeClock) {
    let hand = FakeRelativeClock::default();
    (Arc::new(Quotas::with_clock(limits, &Clock::Hand(hand.clone()))), hand)
}

#[test]
fn requests_come_back_one_by_one() {
    let (quotas, hand) = quotas(Limits { requests: Some((n(60), n(3))), ..Limits::default() });
    for _ in 0..3 {
        assert_eq!(quotas.request(), Ok(()));
    }
    let wait = Duration::from_secs(1);
    assert_eq!(quotas.request(), Err(QuotaError::Requests { per_minute: n(60), wait }));
    hand.advance(Duration::from_millis(400));
    assert_eq!(quotas.request().unwrap_err().wait(), Some(Duration::from_millis(600)), "the wait shrinks");
    hand.advance(Duration::from_millis(600));
    assert_eq!(quotas.request(), Ok(()));
    assert!(quotas.request().is_err());
    hand.advance(Duration::from_secs(3600));
    assert_eq!(
        (0..10).filter(|_| quotas.request().is_ok()).count(),
        3,
        "an idle hour saves no more than the burst"
    );
}

#[test]
fn tokens_that_were_not_spent_come_back_and_no_more() {
    let (quotas, hand) = quotas(Limits { tokens: Some((n(600), n(100))), ..Limits::default() });
    let mut first = quotas.begin(80).unwrap();
    let error = quotas.begin(30).unwrap_err();
    // 20 are left and ten come back a second.
    assert_eq!(error, QuotaError::Tokens { asked: 30, per_minute: n(600), wait: Duration::from_secs(1) });
    first.spend(25);
    drop(first);
    assert!(quotas.begin(76).is_err(), "75 are left");
    let second = quotas.begin(75).unwrap();
    drop(second);
    assert_eq!(quotas.running(), 0);
    hand.advance(Duration::from_secs(60));
    drop(quotas.begin(100).unwrap());
    assert!(quotas.begin(101).is_err(), "giving back never makes it fuller than full");
    let mut greedy = quotas.begin(100).unwrap();
    greedy.spend(1000);
    drop(greedy);
    assert_eq!(quotas.begin(10).unwrap_err().wait(), Some(Duration::from_secs(1)), "nothing comes back");
}

#[test]
fn what_can_never_be_taken_is_told_apart() {
    let (quotas, _) = quotas(Limits { tokens: Some((n(600), n(100))), ..Limits::default() });
    let error = quotas.begin(101).unwrap_err();
    assert_eq!(error, QuotaError::TooManyTokens { asked: 101, burst: n(100) });
    assert_eq!(error.wait(), None);
    assert_eq!(
        quotas.begin(u64::MAX).unwrap_err(),
        QuotaError::TooManyTokens { asked: u64::MAX, burst: n(100) }
    );
    assert_eq!(quotas.running(), 0, "a refused request has no place");
    assert!(quotas.begin(100).is_ok());
}

#[test]
fn places_are_given_back() {
    let (quotas, _) = quotas(Limits { concurrent: Some(n(2)), ..Limits::default() });
    let first = quotas.begin(1).unwrap();
    let second = quotas.begin(1).unwrap();
    assert_eq!(quotas.begin(1).unwrap_err(), QuotaError::Concurrent { limit: n(2) });
    drop(first);
    let third = quotas.begin(1).unwrap();
    assert!(quotas.begin(1).is_err());
    drop((second, third));
    assert_eq!(quotas.running(), 0);
}

#[test]
fn no_limits_are_none() {
    let (quotas, _) = quotas(Limits::default());
    let many: Vec<_> = (0..100).map(|_| quotas.begin(u64::MAX).unwrap()).collect();
    assert_eq!(quotas.running(), 100);
    assert!((0..1000).all(|_| quotas.request().is_ok()));
    drop(many);
    assert_eq!(quotas.running(), 0);
}

#[test]
fn a_rate_is_exact_when_many_take_at_once() {
    let hand = FakeRelativeClock::default();
    let rate = Arc::new(Rate::new(n(60), n(1000), Clock::Hand(hand)));
    let taken: usize = std::thread::scope(|scope| {
        let take = || (0..1000).filter(|_| rate.take(n(1)).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| rate.give_back(1)));
        }
    });
    assert_eq!(rate.take(n(401)), Err(Exceeded::Wait(Duration::from_secs(1))));
    assert_eq!(rate.take(n(400)), Ok(()));
}
