mod golden;
mod properties;

use super::*;
use crate::domain::RawSampling;

const OUT: f32 = f32::NEG_INFINITY;

fn params(raw: RawSampling) -> SamplingParams {
    SamplingParams::new(raw).unwrap()
}

/// A raw set with `temperature` 1, from which a test departs.
fn sampled() -> RawSampling {
    RawSampling { temperature: 1.0, ..RawSampling::default() }
}

/// What may be drawn from `row` after `history` was generated, with probabilities.
fn distribution(raw: RawSampling, history: &[u32], row: &[f32]) -> Vec<(u32, f64)> {
    let mut sampler = Sampler::new(&params(raw), 0, &[], row.len());
    let mut row = row.to_vec();
    if let Some(penalties) = &mut sampler.penalties {
        history.iter().for_each(|&token| penalties.count(token));
        penalties.apply(&mut row);
    }
    let best = row::best(&row).unwrap();
    if sampler.params.is_greedy() {
        return vec![(best.token, 1.0)];
    }
    let mut scratch = Scratch::default();
    sampler.filter(&row, best.logit, &mut scratch);
    let kept = &scratch.candidates.kept;
    let total: u64 = kept.iter().map(|candidate| candidate.weight).sum();
    kept.iter().map(|candidate| (candidate.token, candidate.weight as f64 / total as f64)).collect()
}

fn kept(raw: RawSampling, row: &[f32]) -> Vec<u32> {
    distribution(raw, &[], row).into_iter().map(|(token, _)| token).collect()
}

/// The tokens of `count` steps over the same logits.
fn run(params: &SamplingParams, seed: u64, row: &[f32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(params, seed, &[], row.len());
    let mut scratch = Scratch::default();
    let mut step = || sampler.sample(&mut row.to_vec(), Mask::default(), &mut scratch).unwrap().token;
    (0..count).map(|_| step()).collect()
}

fn ln(probabilities: &[f64]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() as f32).collect()
}

#[test]
fn a_bias_moves_the_choice_and_not_the_log_probabilities() {
    let row = ln(&[0.5, 0.3, 0.2]);
    let biased = |logit_bias: &[(u32, f32)], temperature| {
        params(RawSampling {
            logit_bias: logit_bias.into(),
            temperature,
            logprobs: 3,
            ..RawSampling::default()
        })
    };
    let choose = |params: &SamplingParams, mask: Mask<'_>| {
        let mut sampler = Sampler::new(params, 1, &[], row.len());
        sampler.sample(&mut row.clone(), mask, &mut Scratch::default()).unwrap()
    };
    let plain = choose(&biased(&[], 0.0), Mask::default());
    let moved = choose(&biased(&[(2, 1.0), (900, 100.0)], 0.0), Mask::default());
    assert_eq!((plain.token, moved.token), (0, 2), "an id without a logit changes nothing");
    assert_eq!(moved.top, plain.top);
    assert!((moved.logprob.unwrap() - 0.2f32.ln()).abs() < 1e-6);
    let forced = biased(&[(1, 100.0)], 1.0);
    assert_eq!(run(&forced, 7, &row, 200), vec![1; 200]);
    let forbidden = biased(&[(0, -100.0)], 1.0);
    assert!(run(&forbidden, 7, &row, 200).iter().all(|&token| token != 0));
    let masked = choose(&biased(&[(1, 100.0)], 0.0), Mask { banned: &[1], allowed: None });
    assert_eq!(masked.token, 0, "a bias frees nothing");
}

#[test]
fn a_bias_comes_before_the_penalties() {
    let raw =
        RawSampling { logit_bias: [(0, -3.0)].into(), repetition_penalty: 2.0, ..RawSampling::default() };
    let mut sampler = Sampler::new(&params(raw), 0, &[0], 2);
    // 1 - 3 = -2, times 2 is -4: below -3. Penalised first it would be 0.5 - 3 = -2.5, above.
    let chosen = sampler.sample(&mut [1.0, -3.0], Mask::default(), &mut Scratch::default()).unwrap();
    assert_eq!(chosen.token, 1);
}

#[test]
fn greedy_takes_the_lowest_id_among_the_best_and_needs_no_memory() {
    let mut row = vec![0.0; 10_000];
    for place in [4_095, 4_096, 9_999] {
        row[place] = 1.0;
    }
    let mut scratch = Scratch::default();
    let mut sampler = Sampler::new(&SamplingParams::greedy(), 0, &[], row.len());
    let chosen = sampler.sample(&mut row, Mask::default(), &mut scratch).unwrap();
    assert_eq!(chosen, Sampled { token: 4_095, logprob: None, top: vec![] });
    assert_eq!((scratch.values.capacity(), scratch.raw.capacity(), chosen.top.capacity()), (0, 0, 0));
}

#[test]
fn the_best_is_found_at_every_place_of_every_length() {
    for len in [1, 2, 31, 32, 33, 64, 4_096, 4_097, 5_000] {
        for place in [0, len / 3, len / 2, len - 1] {
            let mut row = vec![-3.5; len];
            row[place] = -1.25;
            assert_eq!(row::best(&row), Ok(row::Best { token: place as u32, logit: -1.25 }));
            row[place] = f32::NAN;
            assert_eq!(row::best(&row), Err(SampleError::NotFinite { token: place as u32 }));
            row[place] = f32::INFINITY;
            assert_eq!(row::best(&row), Err(SampleError::NotFinite { token: place as u32 }));
        }
    }
    assert_eq!(row::best(&[OUT; 40]), Err(SampleError::NothingAllowed));
    assert_eq!(row::best(&[]), Err(SampleError::NothingAllowed));
}

#[test]
fn a_row_without_a_choice_is_an_error_and_moves_nothing() {
    let raw = RawSampling { logprobs: 2, presence_penalty: 1.0, ..sampled() };
    let (mut sampler, mut scratch) = (Sampler::new(&params(raw), 5, &[], 3), Scratch::default());
    let before = format!("{sampler:?}");
    let mut sample = |row: &[f32], mask| sampler.sample(&mut row.to_vec(), mask, &mut scratch);
    let all = Mask { banned: &[0, 1, 2, 77], allowed: None };
    assert_eq!(sample(&[0.0, f32::NAN, 1.0], Mask::default()), Err(SampleError::NotFinite { token: 1 }));
    assert_eq!(sample(&[OUT; 3], Mask::default()), Err(SampleError::NothingAllowed));
    assert_eq!(sample(&[0.0; 3], all), Err(SampleError::NothingAllowed));
    assert_eq!(sample(&[0.0; 2], Mask::default()), Err(SampleError::ShortRow { found: 2, vocab: 3 }));
    assert_eq!(format!("{sampler:?}"), before);
}

#[test]
fn padding_logits_are_never_chosen() {
    let mut sampler = Sampler::new(&SamplingParams::greedy(), 0, &[], 2);
    let row = &mut [1.0, 2.0, 9.0, f32::NAN];
    assert_eq!(sampler.sample(row, Mask::default(), &mut Scratch::default()).unwrap().token, 1);
}

#[test]
fn masks_leave_what_both_lists_allow() {
    let mut row: Vec<f32> = (0..100).map(|id| id as f32).collect();
    let allowed = [u32::MAX, 0b1010, 0]; // 0 to 31, 33 and 35; nothing from 96 on
    Mask { banned: &[35, 4_000_000_000], allowed: Some(&allowed) }.apply(&mut row);
    let left: Vec<usize> = (0..100).filter(|&id| row[id] > OUT).collect();
    assert_eq!(left, (0..32).chain([33]).collect::<Vec<_>>());
}

#[test]
fn penalties_scale_what_was_read_and_subtract_from_what_was_written() {
    let raw =
        RawSampling { repetition_penalty: 2.0, presence_penalty: 0.5, frequency_penalty: 0.25, ..sampled() };
    let mut penalties = Penalties::new(&params(raw), &[0, 1, 1, 900]).unwrap();
    [1, 2, 2, 4].into_iter().for_each(|token| penalties.count(token));
    let mut row = [4.0, -4.0, 4.0, 4.0, OUT];
    penalties.apply(&mut row);
    assert_eq!(row, [2.0, -8.75, 1.0, 4.0, OUT]);
    assert!(Penalties::new(&SamplingParams::greedy(), &[1]).is_none());
}

#[test]
fn the_smallest_legal_penalty_keeps_logits_finite() {
    let raw = RawSampling { repetition_penalty: 5e-324, ..sampled() };
    let penalties = Penalties::new(&params(raw), &[0, 1, 2, 3]).unwrap();
    let mut row = [1.0, 0.0, -1.0, f32::NAN];
    penalties.apply(&mut row);
    assert_eq!(row[..3], [f32::MAX, 0.0, -0.0]);
    assert!(row[3].is_nan(), "a broken row still shows");
}

#[test]
fn filters_have_the_edges_of_the_field() {
    let row = ln(&[0.1, 0.4, 0.2, 0.3]);
    let top_k = |top_k| kept(RawSampling { top_k, ..sampled() }, &row);
    assert_eq!(
        (top_k(1), top_k(2), top_k(4), top_k(9)),
        (vec![1], vec![1, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3])
    );
    let top_p = |top_p| kept(RawSampling { top_p, ..sampled() }, &row);
    assert_eq!((top_p(1e-300), top_p(0.39), top_p(0.41)), (vec![1], vec![1], vec![1, 3]));
    assert_eq!((top_p(0.71), top_p(0.91), top_p(1.0)), (vec![1, 2, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
    let min_p = |min_p| kept(RawSampling { min_p, ..sampled() }, &row);
    assert_eq!((min_p(0.0), min_p(0.26), min_p(0.74)), (vec![0, 1, 2, 3], vec![1, 2, 3], vec![1, 3]));
    assert_eq!(min_p(1.0), [1]);
    // Top-p counts within what top-k left: 0.4 of 0.7 is more than half.
    assert_eq!(kept(RawSampling { top_k: 2, top_p: 0.5, ..sampled() }, &row), [1]);
    // Temperature 2 makes the shares 0.16, 0.33, 0.23, 0.28.
    assert_eq!(kept(RawSampling { temperature: 2.0, top_p: 0.5, ..sampled() }, &row), [1, 3]);
}

#[test]
fn equal_tokens_stay_together_under_top_k_and_go_by_id_under_top_p() {
    let row = [1.0, 3.0, 1.0, 3.0, 1.0, OUT];
    assert_eq!(kept(RawSampling { top_k: 1, ..sampled() }, &row), [1, 3]);
    assert_eq!(kept(RawSampling { top_k: 3, ..sampled() }, &row), [0, 1, 2, 3, 4]);
    assert_eq!(kept(RawSampling { top_k: 6, ..sampled() }, &row), [0, 1, 2, 3, 4]);
    assert_eq!(kept(RawSampling { top_p: 0.1, ..sampled() }, &row), [1]);
    assert_eq!(kept(RawSampling { top_p: 0.87, ..sampled() }, &row), [0, 1, 3]);
    assert_eq!(kept(RawSampling { top_p: 0.25, ..sampled() }, &[0.0; 1000]), Vec::from_iter(0..250));
}

#[test]
fn the_draw_is_the_inverse_of_the_cumulative_distribution() {
    let mut candidates = Candidates::default();
    candidates.fill(&[OUT, 0.0, -1.0, OUT, 1.0], OUT, 1.0, 1.0);
    let at = |fraction: f64| candidates.pick((fraction * 2_f64.powi(64)) as u64);
    // e^0, e^-1 and e^1 are 0.2447, 0.0900 and 0.6652 of their sum.
    assert_eq!([at(0.0), at(0.2446), at(0.2448), at(0.3346), at(0.3348)], [1, 1, 2, 2, 4]);
    assert_eq!(candidates.pick(u64::MAX), 4);
    let counts = (0..10_000).fold([0; 5], |mut counts, i| {
        counts[at((f64::from(i) + 0.5) / 1e4) as usize] += 1;
        counts
    });
    assert_eq!(counts, [0, 2447, 901, 0, 6652]);
}

#[test]
fn random_numbers_are_splitmix64_by_position() {
    // The published outputs for seed 0, which mixing leaves at 0.
    let published = [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];
    assert_eq!([0, 1, 2].map(|position| draw::uniform(0, position)), published);
    assert_ne!(draw::uniform(1, 0), draw::uniform(0, 1));
    assert_ne!(draw::uniform(u64::MAX, u64::MAX), draw::uniform(u64::MAX, 0));
}

#[test]
fn a_seed_gives_the_same_tokens_in_every_release() {
    let row: Vec<f32> = (0..200_i16).map(|id| f32::from(id * 37 % 101) / 12.0).collect();
    let raw = RawSampling { temperature: 0.9, top_k: 120, top_p: 0.95, min_p: 0.001, ..sampled() };
    let params = params(raw);
    let tokens = run(&params, 7, &row, 12);
    assert_eq!(tokens, PINNED);
    assert_eq!(run(&params, 7, &row, 12), tokens);
    assert_ne!(run(&params, 8, &row, 12), tokens);
}

/// What seed 7 drew when this test was written: a change here changes the answers of users who fix a seed.
const PINNED: [u32; 12] = [109, 60, 191, 180, 131, 68, 79, 125, 161, 19, 185, 30];

#[test]
fn log_probabilities_are_those_of_the_raw_row() {
    let raw = RawSampling { temperature: 0.5, top_k: 1, presence_penalty: 2.0, logprobs: 3, ..sampled() };
    let mut sampler = Sampler::new(&params(raw), 1, &[], 5);
    let mut scratch = Scratch::default();
    let row = ln(&[0.3, 0.05, 0.4, 0.25, 0.0]);
    let mut step = |banned| {
        let chosen = sampler.sample(&mut row.clone(), Mask { banned, allowed: None }, &mut scratch).unwrap();
        let near = |logprob: f32, p: f64| (f64::from(logprob) - p.ln()).abs() < 1e-6;
        let [a, b, c] = chosen.top[..] else { panic!("{:?}", chosen.top) };
        assert_eq!([a.id, b.id, c.id], [2, 0, 3]);
        assert!(near(a.logprob, 0.4) && near(b.logprob, 0.3) && near(c.logprob, 0.25));
        (chosen.token, f64::from(chosen.logprob.unwrap()).exp())
    };
    let steps = [step(&[]), step(&[0, 3]), step(&[2])];
    for ((token, probability), (expected, p)) in steps.into_iter().zip([(2, 0.4), (2, 0.4), (0, 0.3)]) {
        assert_eq!(token, expected);
        assert!((probability - p).abs() < 1e-6, "{probability} {p}");
    }
}

#[test]
fn equal_log_probabilities_are_listed_by_id_and_masked_tokens_not_at_all() {
    let top = |row: &[f32], count| -> Vec<u32> {
        let scores = RawScores::new(row, count, &mut Vec::new()).unwrap();
        scores.top.iter().map(|scored| scored.id).collect()
    };
    assert_eq!(top(&[1.0, 2.0, 1.0, 3.0, 1.0], 4), [3, 1, 0, 2]);
    assert_eq!(top(&[OUT, 2.0, OUT, 3.0], 4), [3, 1]);
    assert_eq!(top(&[0.0; 300], 3), [0, 1, 2]);
    assert_eq!(top(&[0.0, 1.0], 20), [1, 0]);
}

#[test]
fn exp_is_exact_at_zero_and_close_everywhere() {
    assert_eq!(exp::exp(0.0), 1.0);
    assert_eq!(exp::exp(-0.0), 1.0);
    for step in 0..87_000 {
        let x = -(step as f32) / 1000.0;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp::exp(x)) - exact).abs() / exact;
        assert!(error < 2.4e-7, "exp({x}) is off by {error:e}");
    }
    assert!([-87.1, -1e4, f32::MIN, OUT].map(exp::exp).iter().all(|&e| (0.0..2e-38).contains(&e)));
}
