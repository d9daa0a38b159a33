use std::collections::HashSet;

use super::support::key;
use crate::tenancy::{ApiKey, KeyError, KeyHash};

#[test]
fn a_fresh_key_is_unlike_any_other_and_reads_back() {
    let keys: Vec<ApiKey> = (0..100).map(|_| key()).collect();
    let texts: HashSet<&str> = keys.iter().map(ApiKey::reveal).collect();
    assert_eq!(texts.len(), keys.len());
    for key in &keys {
        assert_eq!(key.reveal().len(), "dept_".len() + 40);
        assert_eq!(ApiKey::parse(key.reveal()).unwrap().hash(), key.hash());
    }
}

#[test]
fn the_hash_is_the_sha_256_of_the_whole_key() {
    let key = ApiKey::parse("dept_0123456789abcdef0123456789abcdef01234567").unwrap();
    assert_eq!(KeyHash::try_from(key.hash().to_string()).unwrap(), key.hash());
    assert_eq!(key.hash().to_string(), HASH);
}

/// By `printf dept_0123456789abcdef0123456789abcdef01234567 | sha256sum`.
const HASH: &str = "sha256:b1a92bf5bfa6df7efb91899fec1fbbe25b12aa3c1d378819aa4ade70cb1a8515";

#[test]
fn what_is_no_key_is_refused_and_never_repeated() {
    let good = key();
    let good = good.reveal();
    let (upper, long, short) = (good.to_uppercase(), format!("{good}0"), &good[..good.len() - 1]);
    for bad in ["", "dept_", "sk-secret", "hunter2", &upper, &long, short, &good.replacen("dept", "Dept", 1)]
    {
        let error = ApiKey::parse(bad).unwrap_err();
        assert_eq!(error, KeyError::Form, "{bad}");
        assert!(bad.is_empty() || bad == "dept_" || !error.to_string().contains(bad), "{error}");
    }
    let unicode = format!("dept_{}", "é".repeat(20));
    assert_eq!(ApiKey::parse(&unicode).unwrap_err(), KeyError::Form);
    assert_eq!(format!("{:?}", key()), "ApiKey(…)");
}

#[test]
fn what_is_no_hash_is_refused_and_never_repeated() {
    let good = key().hash().to_string();
    let (bare, upper) = (good.replace("sha256:", ""), good.to_uppercase());
    let unicode = format!("sha256:{}", "é".repeat(32));
    for bad in ["", "sha256:", "sha256:12", &bare, &upper, &format!("{good}0"), &unicode] {
        assert_eq!(KeyHash::try_from(bad.to_owned()).unwrap_err(), KeyError::Hash, "{bad}");
    }
}
