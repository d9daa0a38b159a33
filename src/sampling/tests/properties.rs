use proptest::prelude::*;

use super::*;

/// Legal parameters of every kind, greedy among them.
fn any_params() -> impl Strategy<Value = RawSampling> {
    let temperature = prop_oneof![Just(0.0), Just(1e-300), Just(100.0), 0.01..4.0];
    let top_p = prop_oneof![Just(1.0), Just(1e-300), 0.001..1.0];
    let min_p = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    let penalty = prop_oneof![Just(1.0), Just(5e-324), 0.1..10.0];
    (temperature, 0_u32..40, top_p, min_p, penalty, -2.0..2.0, 0_u8..21).prop_map(
        |(temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, logprobs)| RawSampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            logprobs,
            ..RawSampling::default()
        },
    )
}

/// The filters alone.
fn any_filter() -> impl Strategy<Value = RawSampling> {
    (0.2_f64..3.0, 0_u32..300, 0.01_f64..1.2, -0.3_f64..1.0).prop_map(|(temperature, top_k, top_p, min_p)| {
        RawSampling {
            temperature,
            top_k,
            top_p: top_p.min(1.0),
            min_p: min_p.max(0.0),
            ..RawSampling::default()
        }
    })
}

/// Logits on a coarse grid (many are equal) or on a fine one, some masked, the first one not.
fn any_row() -> impl Strategy<Value = Vec<f32>> {
    let logit =
        |grid: f32| prop_oneof![9 => (-100_i16..100).prop_map(move |x| f32::from(x) * grid), 1 => Just(OUT)];
    let row = move |grid| prop::collection::vec(logit(grid), 1..400);
    prop_oneof![row(0.5), row(0.037)].prop_map(|mut row| {
        row[0] = row[0].max(-1.0);
        row
    })
}

/// The filters as their definitions read: sort everything, in f64. `slack` widens the bounds (a negative one narrows
/// them) by what rounding may decide, weights too small to be drawn included.
fn is_kept(raw: &RawSampling, row: &[f32], slack: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..row.len()).filter(|&id| row[id] > OUT).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    let max = row[order[0]];
    let top_k = if raw.top_k == 0 { row.len() } else { raw.top_k as usize };
    let kth = order.get(top_k - 1).map_or(OUT, |&id| row[id]);
    order.retain(|&id| row[id] >= kth);
    let weight = |id: usize| (f64::from(row[id] - max) / raw.temperature).exp();
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut kept = vec![false; row.len()];
    let mut above = 0.0;
    for &id in &order {
        let in_top_p = raw.top_p >= 1.0 || above / total < raw.top_p + slack;
        kept[id] = in_top_p && weight(id) >= raw.min_p - slack && (slack > 0.0 || weight(id) > 1e-11);
        above += weight(id);
    }
    kept
}

proptest! {
    #[test]
    fn the_filters_keep_what_their_definitions_say(raw in any_filter(), row in any_row()) {
        let (least, most) = (is_kept(&raw, &row, -1e-6), is_kept(&raw, &row, 1e-6));
        let kept = kept(raw, &row);
        for id in 0..row.len() {
            let found = kept.contains(&(id as u32));
            prop_assert!(found || !least[id], "{} is missing", id);
            prop_assert!(most[id] || !found, "{} is too much", id);
        }
    }

    #[test]
    fn the_best_token_is_always_kept(raw in any_filter(), row in any_row()) {
        let best = row::best(&row).unwrap().token;
        prop_assert!(kept(raw, &row).contains(&best));
    }

    #[test]
    fn the_order_of_the_vocabulary_does_not_matter(
        raw in any_filter(),
        (row, shuffled) in any_row().prop_flat_map(|row| (Just(row.clone()), Just(row).prop_shuffle())),
    ) {
        let weights = |row: &[f32]| {
            let mut weights: Vec<f64> = distribution(raw.clone(), &[], row).iter().map(|kept| kept.1).collect();
            weights.sort_by(f64::total_cmp);
            weights
        };
        prop_assert_eq!(weights(&row), weights(&shuffled));
    }

    #[test]
    fn greedy_is_the_limit_of_low_temperature(seed: u64, row in any_row(), place: prop::sample::Index) {
        let mut row = row;
        let place = place.index(row.len());
        row[place] = 60.0;
        for temperature in [0.0, 1e-300, 1e-9, 0.01] {
            let params = params(RawSampling { temperature, ..RawSampling::default() });
            prop_assert_eq!(run(&params, seed, &row, 3), vec![place as u32; 3]);
        }
    }

    #[test]
    fn a_filter_that_removes_nothing_changes_no_draw(seed: u64, row in any_row()) {
        let all = params(RawSampling { temperature: 0.8, ..RawSampling::default() });
        let same = params(RawSampling { temperature: 0.8, top_k: 400, min_p: 1e-300, ..RawSampling::default() });
        prop_assert_eq!(run(&all, seed, &row, 4), run(&same, seed, &row, 4));
    }

    #[test]
    fn used_scratch_is_as_good_as_new(raw in any_params(), seed: u64, rows in prop::collection::vec(any_row(), 1..4)) {
        let (params, mut used) = (params(raw), Scratch::default());
        for row in rows {
            let sample = |scratch: &mut Scratch| {
                let mut sampler = Sampler::new(&params, seed, &[1, 2], row.len());
                sampler.sample(&mut row.clone(), Mask::default(), scratch)
            };
            prop_assert_eq!(sample(&mut used), sample(&mut Scratch::default()));
        }
    }

    #[test]
    fn no_row_panics_and_what_is_chosen_was_allowed(
        raw in any_params(),
        row in prop::collection::vec(prop_oneof![any::<f32>(), -9_f32..9.0, Just(OUT)], 0..200),
        banned in prop::collection::vec(0_u32..250, 0..20),
        allowed in prop::option::of(prop::collection::vec(any::<u32>(), 0..8)),
        prompt in prop::collection::vec(0_u32..300, 0..20),
    ) {
        let mut sampler = Sampler::new(&params(raw.clone()), 3, &prompt, row.len());
        let mut scratch = Scratch::default();
        for _ in 0..3 {
            let mask = Mask { banned: &banned, allowed: allowed.as_deref() };
            let Ok(chosen) = sampler.sample(&mut row.clone(), mask, &mut scratch) else { break };
            let id = chosen.token as usize;
            prop_assert!(row[id].is_finite() && !banned.contains(&chosen.token));
            prop_assert!(allowed.as_ref().is_none_or(|words| words[id / 32] >> (id % 32) & 1 == 1));
            prop_assert_eq!(chosen.logprob.is_some(), raw.logprobs > 0);
            prop_assert!(chosen.top.len() <= raw.logprobs.into());
            prop_assert!(chosen.logprob.is_none_or(|logprob| logprob <= 0.0 && logprob.is_finite()));
        }
    }

    #[test]
    fn the_kth_largest_is_that_of_a_sorted_row(row in prop::collection::vec(-50_i16..50, 1..3000), k: prop::sample::Index) {
        let row: Vec<f32> = row.into_iter().map(f32::from).collect();
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for k in [k.index(row.len()) + 1, 1, 20.min(row.len())] {
            prop_assert_eq!(row::kth_largest(&row, k, &mut Vec::new()), sorted[k - 1]);
        }
    }

    #[test]
    fn the_cut_is_that_of_a_sorted_list(weights in prop::collection::vec(0_u64..200, 1..800), share in 0.0..1.0) {
        let mut weights = weights;
        weights[0] += 1;
        let target = ((weights.iter().sum::<u64>() as f64 * share) as u64).max(1);
        let mut sorted = weights.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let sums = sorted.iter().scan(0, |sum, weight| { *sum += weight; Some(*sum) });
        let last = sums.take_while(|&sum| sum < target).count();
        let ties = sorted[..=last].iter().filter(|&&weight| weight == sorted[last]).count();
        prop_assert_eq!(candidates::cut(&mut weights, target), candidates::Cut { weight: sorted[last], ties });
    }
}
