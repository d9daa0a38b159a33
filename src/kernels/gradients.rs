//! Every op's way back against central differences of its own forward pass, which other tests hold to plain references.

use std::num::NonZeroUsize;

use candle_core::{Device, Result, Tensor, Var};
use half::{bf16, f16};
use proptest::prelude::*;

use super::{
    cross_entropy::CrossEntropy,
    dept_embed::{DeltaRow, EmbeddingTable, Row, RowTable, TrainedPair, TrainedSlot, dept_embed_tracked},
    linear::{Activation, ActivationBits, Gate, Linear, LinearPart, LinearShape, LinearWeights},
    miri::runs,
    norm::Norm,
    pool::ComputePool,
    ragged_attention::{Attention, BiasShape, Direction, HeadShape, Keys, RelativeBias, Span},
    rope::{HeadNorms, PrepareHeads, RopeTable},
    soft_cap::SoftCap,
};

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn pool() -> ComputePool {
    ComputePool::new(NonZeroUsize::new(2).unwrap()).unwrap()
}

fn tensor(shape: (usize, usize), seed: usize) -> Tensor {
    Tensor::from_vec(noise(shape.0 * shape.1, seed), shape, &Device::Cpu).unwrap()
}

/// The sum of `f(inputs)`, each element with a weight of its own, in f64.
fn weighed(f: &impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> f64 {
    let out = f(inputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let weights = noise(out.len(), 77);
    out.iter().zip(weights).map(|(out, weight)| f64::from(*out) * f64::from(weight)).sum()
}

/// Holds the gradients of `f` by its ops to differences of step `h`, at a dozen places of every input.
fn check(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor], h: f32) {
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tracked).unwrap();
    let weights = Tensor::from_vec(noise(out.elem_count(), 77), out.shape(), &Device::Cpu).unwrap();
    let gradients = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    for (at, input) in inputs.iter().enumerate() {
        if input.elem_count() == 0 {
            continue;
        }
        let gradient = gradients.get(vars[at].as_tensor()).expect("every input has a gradient");
        assert_eq!(gradient.shape(), input.shape());
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = gradient.iter().fold(0f32, |largest, g| largest.max(g.abs()));
        let values = input.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for step in 0..12 {
            let place = step * 7907 % values.len();
            let moved = |by: f32| {
                let mut moved = values.clone();
                moved[place] += by;
                let mut inputs = inputs.to_vec();
                inputs[at] = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                weighed(&f, &inputs)
            };
            let expected = (moved(h) - moved(-h)) / f64::from(2.0 * h);
            let found = f64::from(gradient[place]);
            let error = (found - expected).abs();
            assert!(
                error < 3e-3 * (0.3 + f64::from(largest)),
                "input {at}[{place}]: {expected}, found {found}"
            );
        }
    }
}

fn part(n: usize, k: usize, seed: usize) -> LinearPart {
    let weights = LinearWeights::F32 { values: noise(n * k, seed) };
    LinearPart { shape: LinearShape { n, k }, weights, bias: Some(noise(n, seed + 1)) }
}

fn spans(lengths: &[usize], causal: bool) -> Vec<Span<'static>> {
    let mut start = 0;
    let span = |&length: &usize| {
        let queries = start..start + length;
        let span = Span { queries, first_position: 0, context: length, keys: Keys::Rows { start }, causal };
        start += length;
        span
    };
    lengths.iter().map(span).collect()
}

proptest! {
    #![proptest_config(runs(12))]

    #[test]
    fn linear(rows in 1usize..9, n in 1usize..70, k in 1usize..70) {
        let linear = Linear::differentiable(vec![part(n, k, 3), part(5, k, 9)], pool()).unwrap();
        check(|x| linear.forward(&x[0]), &[tensor((rows, k), 1)], 0.1);
        let onto = tensor((rows, n + 5), 2);
        check(|x| linear.forward_onto(&x[0], &x[1]), &[tensor((rows, k), 1), onto], 0.1);
    }

    #[test]
    fn linear_in_8_bits_follows_its_widened_twin(rows in 1usize..5, n in 1usize..50, k in 1usize..50) {
        let values = noise(n * k, 4);
        let shape = LinearShape { n, k };
        let eight = LinearWeights::quantise(&values, shape, ActivationBits::Fifteen).unwrap();
        let LinearWeights::I8 { values: bytes, scales, .. } = &eight else { unreachable!() };
        let wide = bytes.chunks_exact(k).zip(scales);
        let wide = wide.flat_map(|(row, scale)| row.iter().map(move |&b| f32::from(b) * scale)).collect();
        let gradient = |weights| {
            let linear = Linear::differentiable(vec![LinearPart { shape, weights, bias: None }], pool()).unwrap();
            let x = Var::from_tensor(&tensor((rows, k), 1)).unwrap();
            let y = linear.forward(x.as_tensor()).unwrap();
            let sum = (&y * tensor((rows, n), 6)).unwrap().sum_all().unwrap();
            let gradient = sum.backward().unwrap().get(x.as_tensor()).unwrap().flatten_all().unwrap();
            gradient.to_vec1::<f32>().unwrap()
        };
        let (found, expected) = (gradient(eight), gradient(LinearWeights::F32 { values: wide }));
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() < 1e-3 * (n as f32).sqrt(), "{} {}", expected, found);
        }
    }

    #[test]
    fn linear_of_other_formats_has_the_gradient_of_its_widened_twin(rows in 1usize..5, n in 1usize..50, k in 1usize..100) {
        let shape = LinearShape { n, k };
        let blocks = LinearWeights::quantise_blocks(&noise(n * k, 4), shape, ActivationBits::Fifteen).unwrap();
        let numbers = |seed| noise(n * k.div_ceil(32), seed).into_iter().map(f16::from_f32).collect();
        let levels = noise(n * k, 5).into_iter().map(|value| (value.abs() * 15.0) as u8).collect();
        let activations = ActivationBits::Fifteen;
        let nibbles = LinearWeights::Nibbles { levels, scales: numbers(6), offsets: numbers(7), activations };
        let gradient = |weights| {
            let linear = Linear::differentiable(vec![LinearPart { shape, weights, bias: None }], pool()).unwrap();
            let x = Var::from_tensor(&tensor((rows, k), 1)).unwrap();
            let y = linear.forward(x.as_tensor()).unwrap();
            let sum = (&y * tensor((rows, n), 6)).unwrap().sum_all().unwrap();
            let gradient = sum.backward().unwrap().get(x.as_tensor()).unwrap().flatten_all().unwrap();
            gradient.to_vec1::<f32>().unwrap()
        };
        let brains = LinearWeights::Bf16 { values: noise(n * k, 8).into_iter().map(bf16::from_f32).collect() };
        let halves = LinearWeights::F16 { values: noise(n * k, 9).into_iter().map(f16::from_f32).collect() };
        for weights in [blocks, nibbles, brains, halves] {
            let wide = LinearWeights::F32 { values: weights.widen(k) };
            prop_assert_eq!(gradient(weights), gradient(wide));
        }
    }

    #[test]
    fn norms(rows in 1usize..6, width in 2usize..90, layer: bool) {
        let weight = noise(width, 5);
        let norm = match layer {
            true => Norm::layer(weight, noise(width, 6), 1e-5, pool()).unwrap(),
            false => Norm::rms(weight, 1e-5, pool()).unwrap(),
        };
        // Rows away from zero, where the norm is too curved for differences.
        let x = (tensor((rows, width), 2) + tensor((rows, width), 3).sign().unwrap()).unwrap();
        check(|x| norm.forward(&x[0]), &[x], 1e-3);
    }

    #[test]
    fn gates(rows in 1usize..6, n in 1usize..50, gated: bool, smooth in prop::sample::select(vec![Activation::GeluTanh, Activation::Silu])) {
        let gate = if gated { Gate::gated(smooth, pool()) } else { Gate::activation(smooth, pool()) };
        let width = if gated { 2 * n } else { n };
        check(|z| gate.forward(&z[0]), &[(tensor((rows, width), 8) * 3.0).unwrap()], 1e-2);
    }

    #[test]
    fn turned_and_normed_heads(
        (kv_heads, group, half) in (1usize..3, 1usize..3, 1usize..20),
        positions in prop::collection::vec(0u32..200, 1..9),
        normed: bool,
    ) {
        let pool = pool();
        let heads = HeadShape { heads: kv_heads * group, kv_heads, dim: 2 * half };
        let frequencies: Vec<f32> = (0..half).map(|i| 100f32.powf(-(i as f32) / half as f32)).collect();
        let rope = RopeTable::new(&frequencies, 200);
        let norm = |seed| Norm::rms(noise(heads.dim, seed), 1e-5, pool.clone()).unwrap();
        let norms = normed.then(|| HeadNorms { query: norm(1), key: norm(2) });
        let width = heads.query_width() + 2 * heads.kv_width();
        let rows = positions.len();
        let x = (tensor((rows, width), 2) + tensor((rows, width), 3).sign().unwrap()).unwrap();
        let positions = positions.into();
        let op = PrepareHeads { heads, norms: norms.as_ref(), rope: &rope, positions: &positions, pool: &pool };
        check(|x| op.forward(x[0].copy()?), &[x], 1e-3);
    }

    #[test]
    fn attention_among_rows(
        (kv_heads, group, dim) in (1usize..3, 1usize..3, 1usize..20),
        lengths in prop::collection::vec(1usize..12, 1..4),
        causal: bool,
        biased: bool,
        window in prop::option::of(1usize..8),
        soft_cap in prop::option::of(0.5f32..4.0),
    ) {
        let pool = pool();
        let heads = HeadShape { heads: kv_heads * group, kv_heads, dim };
        let shape = BiasShape { buckets: 8, max_distance: 20, heads: heads.heads, direction: Direction::Both };
        let bias = biased.then(|| RelativeBias::new(shape, &noise(8 * heads.heads, 5), 64));
        let spans = spans(&lengths, causal);
        let attention =
            Attention { heads, scale: 0.7, soft_cap, bias: bias.as_ref(), window, spans: &spans, pool: &pool, tables: None };
        let rows = lengths.iter().sum();
        let x = tensor((rows, heads.query_width() + 2 * heads.kv_width()), 1);
        check(|x| attention.among_rows(&x[0]), &[x], 1e-2);
    }

    #[test]
    fn attention_over_the_rows_of_another_tensor(
        (kv_heads, group, dim) in (1usize..3, 1usize..3, 1usize..20),
        lengths in prop::collection::vec((1usize..4, 1usize..12), 1..4),
    ) {
        let pool = pool();
        let heads = HeadShape { heads: kv_heads * group, kv_heads, dim };
        let (queries, keys): (Vec<usize>, Vec<usize>) = lengths.iter().copied().unzip();
        let mut spans = spans(&queries, false);
        for (span, keys) in spans.iter_mut().zip(self::spans(&keys, false)) {
            (span.context, span.keys) = (keys.context, keys.keys);
        }
        let attention = Attention { heads, scale: 1.0, soft_cap: None, bias: None, window: None, spans: &spans, pool: &pool, tables: None };
        let q = tensor((queries.iter().sum(), heads.query_width()), 1);
        let kv = tensor((keys.iter().sum(), 2 * heads.kv_width()), 2);
        check(|x| attention.over_rows(&x[0], &x[1]), &[q, kv], 1e-2);
    }

    #[test]
    fn embedded_rows_give_to_p_a_and_b(
        (m, r, s) in (0usize..4, 1usize..6, 1usize..8),
        rows in prop::collection::vec((0u32..11, 0usize..9), 1..20),
        paired: bool,
    ) {
        const HIDDEN: usize = 70;
        let table = EmbeddingTable::f32(11, HIDDEN, noise(11 * HIDDEN, 1)).unwrap();
        let mut batch = RowTable::default();
        // The same prompt and delta rows again and again, as several sequences of a batch have them.
        for &(token, pick) in &rows {
            batch.push(match pick {
                0..3 if m > 0 => Row::Prompt { slot: 0, index: (pick % m) as u32 },
                8 => Row::Token { token, delta: None },
                _ => {
                    let delta = DeltaRow { slot: 0, index: (pick % s) as u32 };
                    Row::Token { token, delta: paired.then_some(delta) }
                }
            });
        }
        let embed = |x: &[Tensor]| {
            let pair = (x.len() > 1).then(|| TrainedPair { a: x[1].clone(), b: x[2].clone(), scale: 1.7 });
            dept_embed_tracked(&table, &TrainedSlot { prompt: x[0].clone(), pair }, &batch, &pool())
        };
        let all = [tensor((m, HIDDEN), 2), tensor((s, r), 3), tensor((r, HIDDEN), 4)];
        if paired {
            check(embed, &all, 0.1);
        } else if m > 0 {
            check(embed, &all[..1], 0.1);
        }
    }

    #[test]
    fn losses(rows in 1usize..6, vocab in 2usize..40) {
        let targets: Vec<u32> = (0..rows).map(|row| (row * 5 % vocab) as u32).collect();
        let loss = |x: &[Tensor]| {
            CrossEntropy { targets: targets.clone(), weight: 0.7, pool: pool() }.forward(&x[0])
        };
        check(loss, &[(tensor((rows, vocab), 1) * 4.0).unwrap()], 1e-2);
    }

    #[test]
    fn capped_logits(rows in 1usize..6, vocab in 2usize..40, cap in 0.5f32..5.0) {
        let x = (tensor((rows, vocab), 1) * 4.0).unwrap();
        check(|x| SoftCap::new(cap, pool()).forward(&x[0]), &[x], 1e-2);
    }
}

#[test]
fn a_relu_has_a_slope_of_one_or_zero() {
    let gate = Gate::activation(Activation::Relu, ComputePool::serial());
    let z = Var::from_vec(vec![-2f32, -1e-9, 0.0, 1e-9, 3.0], (1, 5), &Device::Cpu).unwrap();
    let sum = gate.forward(z.as_tensor()).unwrap().sum_all().unwrap();
    let gradient = sum.backward().unwrap().get(z.as_tensor()).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(gradient, [[0.0, 0.0, 0.0, 1.0, 1.0]]);
}

#[test]
fn what_cannot_pass_gradients_says_so() {
    let x = Var::from_tensor(&tensor((2, 4), 1)).unwrap();
    let frozen = Linear::concat(vec![part(3, 4, 1)], ComputePool::serial()).unwrap();
    let error = frozen.forward(x.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap_err();
    assert!(error.to_string().contains("loaded for inference"), "{error}");
}
