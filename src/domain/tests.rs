use super::*;

#[test]
fn names_are_what_the_contract_says() {
    for good in ["a", "boolq", "7b", "a.b_c-d", &"x".repeat(64)] {
        assert_eq!(good.parse::<AdapterName>().unwrap().as_str(), good);
    }
    for bad in ["", "-a", ".a", "A", "a b", "ü", "a/b", "../a", "a@b", &"x".repeat(65)] {
        assert_eq!(bad.parse::<AdapterName>(), Err(NameError::Name(bad.into())));
    }
}

#[test]
fn a_reference_may_pin_a_version() {
    let version = Version::from_digest([0xab; 32]);
    let pinned: AdapterRef = "sst2@abababababab".parse().unwrap();
    assert_eq!(pinned.name.as_str(), "sst2");
    assert!(pinned.version.as_ref().unwrap().matches(&version));
    assert!(!pinned.version.unwrap().matches(&Version::from_digest([0xcd; 32])));
    let whole: AdapterRef = format!("sst2@{version}").parse().unwrap();
    assert!(whole.version.unwrap().matches(&version));
    for bad in ["sst2@", "sst2@abc", "sst2@ABABABABABAB", "sst2@zzzzzzzzzzzz", "@abababababab"] {
        assert!(bad.parse::<AdapterRef>().is_err(), "{bad}");
    }
}

#[test]
fn sampling_values_out_of_range_are_refused_by_name() {
    type Spoil = fn(&mut RawSampling);
    let cases: [(&str, Spoil); 11] = [
        ("temperature", |r| r.temperature = f64::NAN),
        ("temperature", |r| r.temperature = -0.1),
        ("top_p", |r| r.top_p = 0.0),
        ("top_p", |r| r.top_p = f64::INFINITY),
        ("min_p", |r| r.min_p = 1.1),
        ("repetition_penalty", |r| r.repetition_penalty = 0.0),
        ("presence_penalty", |r| r.presence_penalty = 2.5),
        ("frequency_penalty", |r| r.frequency_penalty = f64::NAN),
        ("logit_bias", |r| r.logit_bias = [(1, 100.5)].into()),
        ("logit_bias", |r| r.logit_bias = [(1, 0.0), (2, f32::NAN)].into()),
        ("logprobs", |r| r.logprobs = 21),
    ];
    for (param, spoil) in cases {
        let mut raw = RawSampling::default();
        spoil(&mut raw);
        assert_eq!(SamplingParams::new(raw).unwrap_err().param, param);
    }
    assert!(SamplingParams::new(RawSampling::default()).unwrap().is_greedy());
}
