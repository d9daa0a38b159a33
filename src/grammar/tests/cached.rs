//! Grammars by content.

use std::time::Instant;

use super::*;
use crate::{domain::TenantId, grammar::Grammars};

fn grammars() -> Grammars {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/flan-t5-small-en/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let size = tokenizer.id_bound();
    Grammars::new(tokenizer, size, vec![1])
}

#[test]
fn what_a_tenant_asks_for_again_is_compiled_once() {
    let (grammars, tenant) = (grammars(), TenantId::default_tenant());
    let other: TenantId = "other".parse().unwrap();
    let first = grammars.get(&tenant, &regex("a+")).unwrap();
    assert!(Arc::ptr_eq(&first, &grammars.get(&tenant, &regex("a+")).unwrap()));
    assert!(!Arc::ptr_eq(&first, &grammars.get(&tenant, &regex("a*")).unwrap()));
    assert!(!Arc::ptr_eq(&first, &grammars.get(&other, &regex("a+")).unwrap()), "tenants share nothing");
    // So many others that the first is forgotten.
    for at in 0..200 {
        grammars.get(&tenant, &choice(&[&format!("text {at}")])).unwrap();
    }
    assert!(!Arc::ptr_eq(&first, &grammars.get(&tenant, &regex("a+")).unwrap()));
}

#[test]
fn who_asks_at_once_waits_for_one_compilation_and_many_all_have_their_turn() {
    let (grammars, tenant) = (grammars(), TenantId::default_tenant());
    let wanted: Vec<Grammar> = (0..24).map(|at| regex(&format!("[a-z]{{{}}}", at / 2))).skip(2).collect();
    let compiled: Vec<_> = std::thread::scope(|scope| {
        let (grammars, tenant) = (&grammars, &tenant);
        let ask = |grammar| scope.spawn(move || grammars.get(tenant, grammar).unwrap());
        let asked: Vec<_> = wanted.iter().map(ask).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(compiled.chunks(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1])));
}

#[test]
fn masks_do_not_depend_on_who_else_follows_the_grammar() {
    let vocabulary = embedded();
    let compiled = compile(&regex("[a-z]{2,4}( [a-z]{2,9}){0,3}"), &vocabulary).unwrap();
    let size = vocabulary.spelling.words.len();
    let walk = |seed: usize| {
        let (mut guide, mut masks) = (Guide::new(Arc::clone(&compiled)), Vec::new());
        for step in 0..6 {
            let allowed = allowed(guide.mask().unwrap(), size);
            masks.push(allowed.clone());
            let more: Vec<u32> = allowed.into_iter().filter(|&id| id != 1).collect();
            let Some(&token) = more.get((seed * 7919 + step * 104_729) % more.len().max(1)) else { break };
            if guide.advance(token).unwrap() == Progress::Whole {
                break;
            }
        }
        masks
    };
    let alone: Vec<_> = (0..8).map(walk).collect();
    // Many guides at once: some masks are computed by the helper, some by who needs them.
    let together: Vec<_> = std::thread::scope(|scope| {
        let walks: Vec<_> = (0..8).map(|seed| scope.spawn(move || walk(seed))).collect();
        walks.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

/// Not a bound on speed: something that never ends must not pass.
fn in_time<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    assert!(start.elapsed().as_secs() < 60, "it took {:?}", start.elapsed());
    done
}

#[test]
fn ten_thousand_choices_are_followed() {
    let texts: Vec<String> = (0..10_000).map(|at| format!("option {at} of many")).collect();
    let grammar = Grammar::Choice(Choices::new(texts).unwrap());
    let compiled = in_time(|| grammars().get(&TenantId::default_tenant(), &grammar)).unwrap();
    let mut guide = Guide::new(compiled);
    assert!(guide.mask().unwrap().iter().any(|&word| word != 0));
}
