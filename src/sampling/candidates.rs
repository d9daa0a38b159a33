//! The tokens that may be drawn, with integer weights.
//!
//! A weight is exp((logit - max) / temperature) in units of 2^-40, so the best token's is 2^40 and what is less
//! than 2^-41 as probable weighs nothing. Sums of integers don't depend on their order: the selections below may
//! reorder as they like, and a draw hits exactly one token.

use super::{
    exp::exp,
    row::{BLOCK, blocks_reaching},
};

/// The weight of the most probable token. The sum fits 64 bits up to 2^24 tokens.
const ONE: u64 = 1 << 40;
/// Further than this below the largest logit, at temperature 1, a weight is 0: ln 2^41 is 28.4.
const NEGLIGIBLE: f64 = 29.0;
/// Weights so few that sorting them is quicker than partitioning on.
const FEW: usize = 64;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) weight: u64,
    pub(super) token: u32,
}

/// The tokens that may be drawn, by ascending id. Never empty once filled.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) kept: Vec<Candidate>,
    /// Weights to select among, reordered freely.
    order: Vec<u64>,
}

impl Candidates {
    /// Takes the tokens of `row` with a logit of at least `floor`, weighed at `temperature` (more than 0). `max` is
    /// the row's largest logit.
    pub(super) fn fill(&mut self, row: &[f32], floor: f32, max: f32, temperature: f64) {
        let weightless = (f64::from(max) - NEGLIGIBLE * temperature) as f32;
        let floor = floor.max(weightless);
        // Finite, so that the best token's 0 stays 0.
        let scale = (1.0 / temperature).min(f32::MAX.into()) as f32;
        self.kept.clear();
        for (first, block) in blocks_reaching(row, floor) {
            let mut shares = [0.0; BLOCK];
            shares.iter_mut().zip(block).for_each(|(share, &x)| *share = exp((x - max) * scale));
            let weights = shares.map(to_weight);
            let tokens = (first as u32..).zip(weights).zip(block).filter(|&(_, &x)| x >= floor);
            self.kept.extend(tokens.map(|((token, weight), _)| Candidate { weight, token }));
        }
    }

    /// Keeps the smallest set of the most probable tokens that together reach `top_p` (more than 0, below 1).
    pub(super) fn keep_top_p(&mut self, top_p: f64) {
        let total = self.total();
        // All that weigh less than this weigh less than 1 - top_p together, so the set has none of them.
        let least = ((1.0 - top_p) * total as f64 / self.kept.len() as f64) as u64;
        self.order.clear();
        self.order
            .extend(self.kept.iter().map(|candidate| candidate.weight).filter(|&weight| weight >= least));
        let target = (top_p * total as f64).ceil() as u64;
        let target = target.clamp(1, self.order.iter().sum());
        let Cut { weight: lightest, mut ties } = cut(&mut self.order, target);
        self.kept.retain(|candidate| {
            let tied = candidate.weight == lightest && ties > 0;
            ties -= usize::from(tied);
            tied || candidate.weight > lightest
        });
    }

    /// Keeps the tokens that are at least `min_p` (up to 1) times as probable as the best one.
    pub(super) fn keep_min_p(&mut self, min_p: f64) {
        let least = (min_p * ONE as f64).ceil() as u64;
        self.kept.retain(|candidate| candidate.weight >= least);
    }

    /// The token at the fraction `uniform / 2^64` of the sum of the weights, counted by ascending id.
    pub(super) fn pick(&self, uniform: u64) -> u32 {
        let mut left = ((u128::from(uniform) * u128::from(self.total())) >> 64) as u64;
        let hit = self.kept.iter().find(|candidate| {
            let hit = left < candidate.weight;
            left = left.saturating_sub(candidate.weight);
            hit
        });
        hit.expect("the fraction is below the sum, and the best token weighs something").token
    }

    fn total(&self) -> u64 {
        self.kept.iter().map(|candidate| candidate.weight).sum()
    }
}

/// A weight relative to the best one (0 to 1) in units of 2^-40, rounded.
fn to_weight(share: f32) -> u64 {
    // Above 2^52 the bits of an f64 count whole numbers: the sum rounds, and vector code has no other conversion.
    const WHOLE: f64 = (1_u64 << 52) as f64;
    (f64::from(share) * ONE as f64 + WHOLE).to_bits() - WHOLE.to_bits()
}

/// Where the heaviest weights reach a sum: the lightest of them, and how many of its equals are needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) weight: u64,
    pub(super) ties: usize,
}

/// The smallest set of the heaviest `weights` with a sum of at least `target` (more than 0, at most the sum of all).
/// Partitions like quickselect, by sum instead of by rank: linear time, and the order is lost.
pub(super) fn cut(weights: &mut [u64], target: u64) -> Cut {
    let (mut rest, mut missing) = (&mut *weights, target);
    while rest.len() > FEW {
        // Less than half, for the mass sits in few tokens.
        let head_len = rest.len() / 4;
        rest.select_nth_unstable_by(head_len, |a, b| b.cmp(a));
        let (head, tail) = rest.split_at_mut(head_len);
        let head_sum = head.iter().sum();
        rest = if missing <= head_sum {
            head
        } else {
            missing -= head_sum;
            tail
        };
    }
    rest.sort_unstable_by(|a, b| b.cmp(a));
    let crossing = rest.iter().find(|&&weight| {
        let crosses = missing <= weight;
        missing = missing.saturating_sub(weight);
        crosses
    });
    let weight = *crossing.expect("the target is at most the sum of all weights");
    let above: u64 = weights.iter().filter(|&&other| other > weight).sum();
    Cut { weight, ties: (target - above).div_ceil(weight) as usize }
}
