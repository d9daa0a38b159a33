use std::num::NonZeroUsize;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::kernels::miri::{runs, unless_miri};

const HIDDEN: usize = 72; // one strip of 64 and a tail
const VOCAB: usize = 11;

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// The tensors of one adapter.
#[derive(Debug)]
struct Adapter {
    prompt: Vec<f32>,
    update: Held,
}

#[derive(Debug)]
enum Held {
    None,
    /// A, B, r and the scale.
    LowRank(Vec<f32>, Vec<f32>, usize, f32),
    /// A, a, B and b.
    Adept([Vec<f32>; 4]),
}

impl Adapter {
    fn new(seed: usize, m: usize, s: usize, r: usize) -> Self {
        let pair =
            || Held::LowRank(noise(s * r, seed + 1), noise(r * HIDDEN, seed + 2), r, 8.0 / (r as f32).sqrt());
        Self { prompt: noise(m * HIDDEN, seed), update: if r > 0 { pair() } else { Held::None } }
    }

    fn adept(seed: usize, m: usize, r: usize) -> Self {
        let lengths = [HIDDEN * r, r, r * HIDDEN, HIDDEN];
        // Small, so that sums of d * r products stay near the embeddings.
        let small = |at: usize| noise(lengths[at], seed + at + 1).into_iter().map(|x| x * 0.1).collect();
        let tensors = std::array::from_fn(small);
        Self { prompt: noise(m * HIDDEN, seed), update: Held::Adept(tensors) }
    }

    fn slot(&self) -> AdapterSlot<'_> {
        let update = match &self.update {
            Held::None => UpdateSlot::None,
            Held::LowRank(a, b, rank, scale) => {
                UpdateSlot::LowRank(LowRankSlot { a, b, rank: *rank, scale: *scale })
            }
            Held::Adept([a, bias_a, b, bias_b]) => UpdateSlot::Adept(AdeptSlot { a, bias_a, b, bias_b }),
        };
        AdapterSlot { prompt: &self.prompt, update }
    }
}

fn tables() -> [EmbeddingTable; 2] {
    let bytes: Vec<i8> = (0..VOCAB * HIDDEN).map(|i| (i * 89 % 255) as u8 as i8).collect();
    let scales = noise(VOCAB, 9);
    [
        EmbeddingTable::f32(VOCAB, HIDDEN, noise(VOCAB * HIDDEN, 8)).unwrap(),
        EmbeddingTable::i8(VOCAB, HIDDEN, bytes, scales).unwrap(),
    ]
}

/// The rows of one sequence: the prompt, then tokens with updates where the adapter has them.
fn push_sequence(rows: &mut RowTable, slot: u32, adapter: &Adapter, tokens: usize) {
    for index in 0..(adapter.prompt.len() / HIDDEN) as u32 {
        rows.push(Row::Prompt { slot, index });
    }
    for index in 0..tokens as u32 {
        let delta = (!matches!(adapter.update, Held::None)).then_some(DeltaRow { slot, index });
        rows.push(Row::Token { token: (index * 5 + slot) % VOCAB as u32, delta });
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(runs(64))]

    #[test]
    fn mixed_adapters_equal_the_reference_and_the_batch_changes_no_bit(
        shapes in prop::collection::vec(
            (0usize..unless_miri(6, 3), 1usize..9, 0usize..unless_miri(40, 6), 0usize..unless_miri(9, 4), any::<bool>()),
            1..unless_miri(5, 3),
        ),
        threads in 1usize..3,
    ) {
        let pool = ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let adapters: Vec<(Adapter, usize)> = shapes
            .iter()
            .enumerate()
            .map(|(seed, &(m, s, r, n, adept))| match adept {
                true => (Adapter::adept(seed, m, r.max(1)), n),
                false => (Adapter::new(seed, m, s, r), n.min(s)),
            })
            .collect();
        let slots: Vec<AdapterSlot> = adapters.iter().map(|(adapter, _)| adapter.slot()).collect();
        for table in tables() {
            let mut batch = RowTable::default();
            for (slot, (adapter, tokens)) in adapters.iter().enumerate() {
                push_sequence(&mut batch, slot as u32, adapter, *tokens);
            }
            batch.push(Row::Token { token: 3, delta: None });
            let found = dept_embed(&table, &slots, &batch, &pool).unwrap();
            prop_assert_eq!(found.dims(), &[batch.len(), HIDDEN]);
            let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (found, expected) in found.iter().zip(reference::dept_embed(&table, &slots, &batch)) {
                prop_assert!((found - expected).abs() < 1e-4, "{} {}", found, expected);
            }
            let mut start = 0;
            for (adapter, tokens) in &adapters {
                let mut alone = RowTable::default();
                push_sequence(&mut alone, 0, adapter, *tokens);
                let expected = &found[start * HIDDEN..(start + alone.len()) * HIDDEN];
                start += alone.len();
                // The token ids of a sequence depend on its slot, so only slot 0 repeats exactly.
                if std::ptr::eq(adapter, &adapters[0].0) {
                    let alone = dept_embed(&table, &[adapter.slot()], &alone, &pool).unwrap();
                    prop_assert_eq!(bits(&alone.flatten_all().unwrap().to_vec1().unwrap()), bits(expected));
                }
            }
        }
    }
}

#[test]
fn rows_survive_packing() {
    let rows = [
        Row::Prompt { slot: 2, index: 7 },
        Row::Token { token: 0, delta: None },
        Row::Token { token: 9, delta: Some(DeltaRow { slot: 1, index: 0 }) },
    ];
    let mut table = RowTable::with_capacity(3);
    rows.iter().for_each(|&row| table.push(row));
    assert_eq!(table.iter().collect::<Vec<_>>(), rows);
}

#[test]
fn every_way_out_of_bounds_is_an_error() {
    let [table, _] = tables();
    let (dept, plain) = (Adapter::new(0, 2, 3, 2), Adapter::new(1, 1, 3, 0));
    let slots = [dept.slot(), plain.slot()];
    let run = |row| {
        let mut rows = RowTable::default();
        rows.push(Row::Token { token: 0, delta: None });
        rows.push(row);
        check(table.shape(), &slots, &rows)
    };
    let delta = |slot, index| Row::Token { token: 0, delta: Some(DeltaRow { slot, index }) };
    let row = 1;
    assert_eq!(run(delta(0, 2)), Ok(()));
    assert_eq!(
        run(Row::Token { token: 11, delta: None }),
        Err(DeptEmbedError::Token { row, token: 11, vocab: 11 })
    );
    assert_eq!(
        run(Row::Prompt { slot: 0, index: 2 }),
        Err(DeptEmbedError::Prompt { row, slot: 0, index: 2, prompt_length: 2 })
    );
    assert_eq!(run(delta(0, 3)), Err(DeptEmbedError::Delta { row, slot: 0, index: 3, max_length: 3 }));
    assert_eq!(run(delta(1, 0)), Err(DeptEmbedError::Delta { row, slot: 1, index: 0, max_length: 0 }));
    assert_eq!(run(delta(2, 0)), Err(DeptEmbedError::Slot { row, slot: 2, slots: 2 }));
    let narrow = AdapterSlot { prompt: &[0.0; HIDDEN + 1], update: UpdateSlot::None };
    let error = check(table.shape(), &[narrow], &RowTable::default()).unwrap_err();
    assert!(matches!(error, DeptEmbedError::Width { slot: 0, .. }), "{error}");
    let adept = Adapter::adept(0, 1, 3);
    let AdapterSlot { prompt, update: UpdateSlot::Adept(network) } = adept.slot() else { panic!() };
    for (short, found) in [
        (AdeptSlot { a: &network.a[1..], ..network }, HIDDEN),
        (AdeptSlot { bias_b: &network.bias_b[1..], ..network }, HIDDEN - 1),
        (AdeptSlot { b: &network.b[3..], ..network }, HIDDEN - 1),
    ] {
        let slot = AdapterSlot { prompt, update: UpdateSlot::Adept(short) };
        let expected = DeptEmbedError::Width { slot: 0, found, hidden: HIDDEN };
        assert_eq!(check(table.shape(), &[slot], &RowTable::default()), Err(expected));
    }
}

#[test]
fn a_table_of_another_size_is_an_error() {
    assert!(EmbeddingTable::f32(2, 3, vec![0.0; 5]).is_err());
    assert!(EmbeddingTable::i8(2, 3, vec![0; 6], vec![0.0; 1]).is_err());
    assert!(EmbeddingTable::f32(0, 0, vec![]).is_err());
    let blocks =
        |vocab, hidden, bytes| EmbeddingTable::blocks(vocab, hidden, RowFormat::Q8_0, vec![0; bytes].into());
    assert!(blocks(2, 64, 4 * 34).is_ok());
    for (vocab, hidden, bytes) in
        [(2, 64, 3 * 34), (2, 64, 4 * 34 - 1), (2, 64, 5 * 34), (4, 24, 3 * 34), (1, 0, 0)]
    {
        assert!(blocks(vocab, hidden, bytes).is_err(), "{vocab} x {hidden} in {bytes} bytes");
    }
}

#[test]
fn rows_of_short_floats_are_the_numbers_that_they_hold() {
    // All that there are: infinities and the like too, for a table's are looked at by nobody.
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let float = |format, bits| match format {
        RowFormat::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    };
    for format in [RowFormat::F16, RowFormat::Bf16] {
        let table = EmbeddingTable::blocks(1 << 11, 32, format, bytes.clone().into()).unwrap();
        assert_eq!(table.bytes(), 1 << 17);
        for (factor, table) in [(1.0, table.clone()), (0.3, table.scaled(0.3))] {
            for token in (0..1 << 11).step_by(unless_miri(1, 300)) {
                let mut row = [0.0; 32];
                table.copy_row(token, &mut row);
                for (at, value) in row.into_iter().enumerate() {
                    let expected = float(format, (token * 32 + at) as u16) * factor;
                    let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
                    assert!(same, "{format:?} {token} {at}: {value} {expected}");
                }
            }
        }
    }
}

#[test]
fn each_row_of_a_table_in_blocks_has_its_own_numbers() {
    // Three rows of two blocks, whose numbers say which they are.
    for format in [RowFormat::Q8_0, RowFormat::Q4_0, RowFormat::Q4_1] {
        let scale = |block: usize| 1.0 + block as f32;
        let block = |block: usize| {
            let mut bytes = f16::from_f32(scale(block)).to_le_bytes().to_vec();
            if format == RowFormat::Q4_1 {
                bytes.extend(f16::from_f32(10.0 + block as f32).to_le_bytes());
            }
            let levels = format.block_bytes() - bytes.len();
            bytes.extend((0..levels).map(|at| {
                if levels == 32 { (at as u8).wrapping_sub(16) } else { at as u8 | (15 - at as u8) << 4 }
            }));
            bytes
        };
        let expected = |block: usize, at: usize| match format {
            RowFormat::Q8_0 => (at as f32 - 16.0) * scale(block),
            _ => {
                let level = if at < 16 { at } else { 31 - at } as f32;
                let offset =
                    if format == RowFormat::Q4_1 { 10.0 + block as f32 } else { -8.0 * scale(block) };
                level * scale(block) + offset
            }
        };
        let bytes: Vec<u8> = (0..6).flat_map(block).collect();
        let table = EmbeddingTable::blocks(3, 64, format, bytes.into()).unwrap();
        for (factor, table) in [(1.0, table.clone()), (3.0, table.scaled(3.0))] {
            for token in 0..3 {
                let mut row = [0.0; 64];
                table.copy_row(token, &mut row);
                for (at, value) in row.into_iter().enumerate() {
                    assert_eq!(
                        value,
                        expected(2 * token + at / 32, at % 32) * factor,
                        "{format:?} {token} {at}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_scaled_table_scales_tokens_but_neither_prompts_nor_updates() {
    let adapter = Adapter::new(0, 2, 3, 2);
    let mut rows = RowTable::default();
    push_sequence(&mut rows, 0, &adapter, 2);
    let run = |table: &EmbeddingTable| {
        let out = dept_embed(table, &[adapter.slot()], &rows, &ComputePool::serial()).unwrap();
        out.to_vec2::<f32>().unwrap()
    };
    for table in tables() {
        let (plain, scaled) = (run(&table), run(&table.clone().scaled(3.0)));
        assert_eq!(plain[..2], scaled[..2]);
        for (token, (plain, scaled)) in plain[2..].iter().zip(&scaled[2..]).enumerate() {
            let mut embedding = [0.0; HIDDEN];
            table.copy_row(token * 5, &mut embedding);
            for (embedding, (plain, scaled)) in embedding.iter().zip(plain.iter().zip(scaled)) {
                assert!((scaled - plain - 2.0 * embedding).abs() < 1e-5);
            }
        }
    }
}
