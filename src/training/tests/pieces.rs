use std::collections::BTreeSet;

use super::support::tiny;
use crate::{
    adapter::{AdapterWeights, Card, Manifest, Matrix, Method, Task, folder},
    backbones::TextPair,
    training::{
        AdapterShape, Checkpoint, Entry, Journal, Order, Output, Parameters, Rates, Settings, Start, TASKS,
        TaskTemplate, Tensors, read_journal, write_whole,
    },
};

pub fn settings() -> Settings {
    Settings {
        prompt_length: 2,
        rank: 1,
        max_length: 4,
        alpha: 8.0,
        lr_prompt: 0.3,
        lr_lowrank: 0.01,
        steps: 10,
        warmup: 4,
        batch_size: 2,
        accumulate: 1,
        clip: 1.0,
        seed: 3,
        eval_every: 5,
        checkpoint_every: 2,
        patience: 0,
        init: "vocabulary".to_owned(),
        dtype: "F32".to_owned(),
        inputs: vec!["model".to_owned()],
    }
}

fn parameters() -> Parameters {
    let shape = AdapterShape { prompt_length: 2, rank: 1, max_length: 4, hidden: 3, alpha: 8.0 };
    let values = Tensors {
        prompt: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        a: vec![0.5, 1.5, 2.5, 3.5],
        b: vec![-1.0, 0.0, 1.0],
    };
    Parameters { shape, values }
}

#[test]
fn rates_rise_and_fall_in_straight_lines() {
    let shares: Vec<f64> = (0..=10).map(|done| settings().rates(done).prompt / 0.3).collect();
    let expected = [0.0, 0.25, 0.5, 0.75, 1.0, 5.0 / 6.0, 4.0 / 6.0, 0.5, 2.0 / 6.0, 1.0 / 6.0, 0.0];
    shares.iter().zip(expected).for_each(|(share, expected)| assert!((share - expected).abs() < 1e-12));
    let Rates { prompt, low_rank } = Settings { warmup: 0, ..settings() }.rates(0);
    assert_eq!((prompt, low_rank), (0.3, 0.01));
}

#[test]
fn an_epoch_has_every_example_once_and_a_seed_its_own_order() {
    let epoch = |seed, epoch: u64| {
        let mut order = Order::new(7, seed);
        (epoch * 7..epoch * 7 + 7).map(|place| order.at(place)).collect::<Vec<_>>()
    };
    for (seed, at) in [(0, 0), (0, 1), (5, 3)] {
        assert_eq!(epoch(seed, at).into_iter().collect::<BTreeSet<_>>().len(), 7);
    }
    assert_ne!(epoch(0, 0), epoch(0, 1));
    assert_ne!(epoch(0, 0), epoch(1, 0));
    assert_eq!(epoch(4, 2), epoch(4, 2));
}

#[test]
fn a_file_is_there_whole_or_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write_whole(&path, b"first").unwrap();
    let missing = folder.path().join("no/such/folder");
    assert!(write_whole(&missing, b"x").unwrap_err().to_string().contains("what was there before is whole"));
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_checkpoint_comes_back_to_the_bit_and_other_files_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    assert!(Checkpoint::load(&path, 3).unwrap().is_none());
    let mut optimiser = crate::training::Optimiser::new(&parameters().values);
    let mut values = parameters().values;
    let gradients = Tensors { prompt: vec![0.1; 6], a: vec![0.2; 4], b: vec![0.3; 3] };
    optimiser.step(&mut values, &gradients, Rates { prompt: 0.1, low_rank: 0.01 });
    let state = crate::training::State {
        settings: settings(),
        step: 1,
        best: Some(crate::training::Best { step: 1, value: 0.1 + 0.2 }),
        since_best: 2,
        seconds: 1.0 / 3.0,
    };
    let checkpoint = Checkpoint { state, values, optimiser };
    checkpoint.save(&path).unwrap();
    assert_eq!(Checkpoint::load(&path, 3).unwrap(), Some(checkpoint));
    assert!(Checkpoint::load(&path, 4).unwrap_err().to_string().contains("'value.P' is not 8 f32 values"));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(Checkpoint::load(&path, 3).is_err());
}

#[test]
fn a_journal_forgets_the_steps_behind_its_checkpoint_and_torn_lines() {
    let folder = tempfile::tempdir().unwrap();
    let step = |step| Entry { step, loss: Some(step as f64 / 3.0), ..Entry::default() };
    let mut journal = Journal::open(folder.path(), 0).unwrap();
    (1..=5).for_each(|at| journal.write(&step(at)).unwrap());
    let path = folder.path().join("log.jsonl");
    let torn = std::fs::read_to_string(&path).unwrap() + "{\"step\": 6, \"lo";
    std::fs::write(&path, torn).unwrap();
    let mut journal = Journal::open(folder.path(), 3).unwrap();
    journal.write(&step(4)).unwrap();
    assert_eq!(read_journal(&path).unwrap(), (1..=4).map(step).collect::<Vec<_>>());
    let csv = std::fs::read_to_string(folder.path().join("log.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5);
    assert!(csv.starts_with("step,loss,") && csv.ends_with("\n4,1.3333333333333333,,,,,,,,\n"), "{csv}");
}

#[test]
fn every_task_of_the_table_makes_a_card() {
    for task in TASKS {
        let card = task.card();
        assert_eq!(card.labels.len(), task.labels.len());
        assert!(crate::evaluation::Metric::named(task.metric).is_some(), "{}", task.name);
        assert_eq!(TaskTemplate::named(task.name), Some(task));
    }
    let boolq = TaskTemplate::named("boolq").unwrap().card();
    assert_eq!(boolq.template.unwrap().to_string(), "question: {question} passage: {passage}");
    assert_eq!(boolq.labels["1"], "true");
}

fn output(folder: &std::path::Path, task: Task) -> Output {
    Output {
        folder: folder.to_owned(),
        task,
        base_model: "tiny".to_owned(),
        layers_and_heads: (2, 4),
        init_text: Some("a text".to_owned()),
    }
}

#[test]
fn what_is_written_loads_as_what_it_is() {
    let card = Card { description: Some("d".to_owned()), ..Card::default() };
    let pair = AdapterShape { prompt_length: 0, ..parameters().shape };
    let plain = AdapterShape { rank: 0, ..parameters().shape };
    let square = AdapterShape { max_length: 3, ..parameters().shape };
    for (shape, method) in [
        (parameters().shape, Method::Dept),
        (pair, Method::LowRankOnly),
        (plain, Method::PromptTuning),
        (square, Method::Dept),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut values = Tensors::zeros(&shape);
        values.prompt.iter_mut().chain(&mut values.b).enumerate().for_each(|(at, value)| *value = at as f32);
        let parameters = Parameters { shape, values };
        let output = output(folder.path(), Task::CausalLm);
        output.save(&parameters, &card).unwrap();
        let loaded = folder::load(folder.path()).unwrap();
        assert_eq!(loaded.manifest.method, method);
        assert_eq!(loaded.weights, parameters.weights().unwrap());
        assert_eq!(loaded.card, card);
        let Manifest { task, base_model, .. } = loaded.manifest;
        assert_eq!((task, base_model.as_deref()), (Task::CausalLm, Some("tiny")));
    }
}

#[test]
fn another_adapter_is_taken_over_with_the_rows_that_its_tokens_read() {
    let pair = |s: usize, task: &str| {
        let a = (0..s).map(|row| row as f32).collect();
        let backbone = tiny(task);
        let d = backbone.hidden();
        let low_rank = crate::adapter::LowRank::new(
            Matrix::new(s, 1, a).unwrap(),
            Matrix::new(1, d, vec![2.0; d]).unwrap(),
            4.0,
        );
        let prompt = Matrix::new(2, d, [vec![1.0; d], vec![2.0; d]].concat()).unwrap();
        (backbone, AdapterWeights::new(prompt, Some(low_rank.unwrap())).unwrap())
    };
    let tokenizer =
        crate::tokenizer::Tokenizer::from_file(&super::support::golden("t5-v1_1/tokenizer.json")).unwrap();
    let from = Start::Adapter("elsewhere".into());
    for (model, s, expected) in [("t5-v1_1", 2, [0.0, 0.5]), ("llama", 2, [1.0, 1.5])] {
        let (backbone, other) = pair(4, model);
        let shape =
            AdapterShape { prompt_length: 3, rank: 1, max_length: s, hidden: backbone.hidden(), alpha: 8.0 };
        let found = crate::training::start(shape, &from, 0, (&backbone, &tokenizer), Some(&other)).unwrap();
        // Halved, as alpha / sqrt(r) is 8 here and 4 there.
        let rows: Vec<f32> = expected.into();
        assert_eq!(found.values.a, if model == "llama" { rows } else { vec![0.0, 0.5] });
        let firsts: Vec<f32> = found.values.prompt.chunks(shape.hidden).map(|row| row[0]).collect();
        assert_eq!(firsts, [1.0, 2.0, 1.0]);
        let other_rank = AdapterShape { rank: 2, ..shape };
        let error = crate::training::start(other_rank, &from, 0, (&backbone, &tokenizer), Some(&other));
        assert!(error.unwrap_err().to_string().contains("has rank 1"));
    }
}

#[test]
fn a_text_fills_the_prompt_and_b_starts_at_zero() {
    let backbone = tiny("t5-v1_1");
    let tokenizer =
        crate::tokenizer::Tokenizer::from_file(&super::support::golden("t5-v1_1/tokenizer.json")).unwrap();
    let shape =
        AdapterShape { prompt_length: 40, rank: 4, max_length: 9, hidden: backbone.hidden(), alpha: 8.0 };
    let text = "a warm film";
    let start = |how: &str| {
        crate::training::start(shape, &how.parse().unwrap(), 7, (&backbone, &tokenizer), None).unwrap().values
    };
    let found = start(&format!("text:{text}"));
    let ids = tokenizer.encode_bare(text).unwrap();
    let rows = backbone.token_rows(&ids).unwrap();
    assert!(ids.len() < 40);
    assert_eq!(found.prompt[..rows.len()], rows);
    assert_eq!(found.prompt[rows.len()..rows.len() + shape.hidden], rows[..shape.hidden]);
    assert!(found.a.iter().all(|value| value.abs() <= 0.5) && found.a.iter().any(|value| value.abs() > 0.4));
    assert!(found.b.iter().all(|value| *value == 0.0));
    assert_eq!(start("vocabulary"), start("vocab"));
    assert!(start("random").prompt.iter().all(|value| value.abs() <= 0.5));
    let empty = crate::training::start(shape, &"text:".parse().unwrap(), 7, (&backbone, &tokenizer), None);
    assert!(empty.unwrap_err().to_string().contains("needs some text"));
}

#[test]
fn a_batch_is_the_sum_of_its_pairs() {
    for model in ["t5-v1_1", "gemma3"] {
        let backbone = tiny(model);
        let shape =
            AdapterShape { prompt_length: 2, rank: 2, max_length: 12, hidden: backbone.hidden(), alpha: 8.0 };
        let mut values = Tensors::zeros(&shape);
        let all = values.prompt.iter_mut().chain(&mut values.a).chain(&mut values.b);
        all.enumerate().for_each(|(at, value)| *value = ((at * 37 % 101) as f32 - 50.0) / 60.0);
        let parameters = Parameters { shape, values };
        let texts =
            [(vec![5u32, 6, 7, 9, 11], vec![8u32, 1]), (vec![9, 9, 3, 4, 5, 6, 7, 8, 12, 10], vec![7])];
        let pairs: Vec<_> = texts.iter().map(|(source, target)| TextPair { source, target }).collect();
        let (loss, together) = backbone.gradients(&parameters, &pairs, 0.5).unwrap();
        let (mut sum, mut losses) = (Tensors::zeros(&shape), 0.0);
        for pair in &pairs {
            let (loss, alone) = backbone.gradients(&parameters, std::slice::from_ref(pair), 0.5).unwrap();
            sum.add(&alone);
            losses += loss;
        }
        assert!((loss - losses).abs() < 1e-5 * loss);
        for ((_, together), (_, alone)) in together.named().into_iter().zip(sum.named()) {
            let largest = alone.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            together.iter().zip(alone).for_each(|(x, y)| assert!((x - y).abs() < 1e-4 * largest, "{x} {y}"));
        }
    }
}
