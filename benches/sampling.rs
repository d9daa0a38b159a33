//! Choosing a token from a row of logits, against candle's LogitsProcessor on the same rows in the same run.
//!
//! Sampling may change the row, so a fresh copy is part of each call, as it is in the server; `copy` is that part alone.

mod support;

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use dept::{
    domain::{RawSampling, SamplingParams},
    sampling::{Mask, Sampler, Scratch},
};
use support::{Bench, noises};

const VOCABULARIES: [usize; 2] = [12288, 49152];
/// More rows than one, so that no branch is learnt by heart.
const ROWS: usize = 16;

fn kinds() -> [(&'static str, RawSampling, Sampling); 4] {
    let raw = RawSampling { temperature: 1.0, ..RawSampling::default() };
    let (temperature, p, k) = (1.0, 0.9, 50);
    [
        ("greedy", RawSampling::default(), Sampling::ArgMax),
        ("all", raw.clone(), Sampling::All { temperature }),
        ("top_p", RawSampling { top_p: p, ..raw.clone() }, Sampling::TopP { p, temperature }),
        ("top_k", RawSampling { top_k: k, ..raw }, Sampling::TopK { k: k as usize, temperature }),
    ]
}

/// Logits as a model makes them: most of them small, a few that matter.
fn row(index: usize, vocab: usize) -> Vec<f32> {
    let parts = noises(index * vocab * 6, vocab * 6);
    let gauss = parts.chunks_exact(6).map(|parts| 2.0 * parts.iter().sum::<f32>());
    gauss.enumerate().map(|(at, logit)| if at % 997 == index { logit + 8.0 } else { logit }).collect()
}

fn main() {
    let mut bench = Bench::new();
    for vocab in VOCABULARIES {
        let rows: Vec<Vec<f32>> = (0..ROWS).map(|index| row(index, vocab)).collect();
        let tensors: Vec<Tensor> = rows
            .iter()
            .map(|row| Tensor::from_slice(row, vocab, &Device::Cpu).expect("a row of logits"))
            .collect();
        let mut work = Vec::with_capacity(vocab);
        let mut next = 0;
        let mut turn = move || {
            next = (next + 1) % ROWS;
            next
        };
        bench.call(&format!("copy {vocab}"), "dept", 1, || {
            work.clear();
            work.extend_from_slice(&rows[turn()]);
            work[0]
        });
        for (name, raw, sampling) in kinds() {
            let case = format!("{name} {vocab}");
            let params = SamplingParams::new(raw).expect("legal parameters");
            let mut sampler = Sampler::new(&params, 7, &[], vocab);
            let mut scratch = Scratch::default();
            bench.call(&case, "dept", 1, || {
                work.clear();
                work.extend_from_slice(&rows[turn()]);
                sampler.sample(&mut work, Mask::default(), &mut scratch).expect("finite logits").token
            });
            let mut processor = LogitsProcessor::from_sampling(7, sampling);
            bench.call(&case, "candle", 1, || processor.sample(&tensors[turn()]).expect("finite logits"));
        }
    }
    println!("\n{:<16}{:>12}{:>14}{:>14}{:>12}", "", "dept us", "Mtokens/s", "candle us", "ratio");
    for vocab in VOCABULARIES {
        for name in ["copy", "greedy", "all", "top_p", "top_k"] {
            let case = format!("{name} {vocab}");
            let Some(ours) = bench.seconds(&case, "dept") else { continue };
            let theirs = bench
                .seconds(&case, "candle")
                .map_or("-".to_owned(), |seconds| format!("{:.1}", seconds * 1e6));
            let ratio = bench.ratio(&case, "dept", "candle");
            println!("{case:<16}{:>12.2}{:>14.3}{theirs:>14}{ratio:>12}", ours * 1e6, 1e-6 / ours);
        }
    }
    bench.finish();
}
