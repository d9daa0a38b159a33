//! The model that ships with the server: 8 bits against the same weights in f32, and its adapters at their task.

use dept::{backbones::weights::Weights, layers::Recipe, runner::KvDtype, sampling::Sampled};

use crate::support::{Job, Memory, generate, lease, load_t5, repo};

const MODEL: &str = "models/flan-t5-small-en";

/// Sentences in the style of SST-2, with their label.
fn reviews() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repo("tests/data/reviews.tsv")).unwrap();
    let line =
        |line: &str| line.split_once('\t').map(|(label, text)| (label.to_owned(), text.to_owned())).unwrap();
    text.lines().map(line).collect()
}

fn answers((recipe, kv_dtype): (Recipe, KvDtype), jobs: &[Job]) -> Vec<Vec<u32>> {
    let model = load_t5(&repo(MODEL), recipe, 2);
    let memory = Memory {
        num_blocks: 512,
        block_size: 16,
        max_batch_tokens: 1024,
        max_num_seqs: 32,
        prefix_cache: false,
        adapter_bytes: 0,
        kv_dtype,
    };
    let tokens = |sampled: &Vec<Sampled>| sampled.iter().map(|sampled| sampled.token).collect();
    generate(model, jobs, memory).0.iter().map(tokens).collect()
}

#[test]
fn eight_bits_say_what_f32_says_and_the_adapter_knows_its_task() {
    let tokenizer = Weights::open(&repo(MODEL)).unwrap().tokenizer().unwrap();
    let sst2 = lease(&repo("adapters/sst2"), None);
    let reviews = reviews();
    assert_eq!(reviews.len(), 100);
    let job = |(_, text): &(String, String)| {
        Job::new(tokenizer.encode(&format!("sentence: {text}")).unwrap(), Some(sst2.clone()), 4)
    };
    let jobs: Vec<Job> = reviews.iter().map(job).collect();
    let as_served = answers((Recipe::Stored, KvDtype::F16), &jobs);
    let (eight, exact) = (as_served, answers((Recipe::F32, KvDtype::Computed), &jobs));
    let tokens = exact.iter().map(Vec::len).sum::<usize>();
    let equal =
        |(eight, exact): (&Vec<u32>, &Vec<u32>)| eight.iter().zip(exact).filter(|(a, b)| a == b).count();
    let agreed = eight.iter().zip(&exact).map(equal).sum::<usize>();
    assert!(agreed * 100 >= tokens * 98, "{agreed} of {tokens} greedy tokens are those of f32");
    let right = |(answer, (label, _)): &(&Vec<u32>, &(String, String))| tokenizer.decode(answer) == *label;
    let right = eight.iter().zip(&reviews).filter(right).count();
    assert!(right >= 85, "{right} of 100 reviews are judged as they are meant");
}
