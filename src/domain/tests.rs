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

#[test]
fn a_grammar_that_nobody_could_follow_is_refused() {
    assert_eq!(Choices::new(Vec::new()), Err(GrammarError::Empty));
    let texts = |texts: &[&str]| Choices::new(texts.iter().map(|&text| text.to_owned()).collect());
    assert_eq!(texts(&["a", ""]), Err(GrammarError::EmptyChoice { at: 1 }));
    let same = texts(&["a", "b", "a"]).unwrap_err();
    assert_eq!((same.at(), same.to_string().as_str()), (Some(2), "text 2 is the same as text 0: 'a'"));
    assert_eq!(texts(&["a", "b"]).unwrap().texts(), ["a", "b"]);
    let many = Choices::new((0..=MAX_CHOICES).map(|at| at.to_string()).collect());
    assert_eq!(
        many,
        Err(GrammarError::TooLarge { found: MAX_CHOICES + 1, unit: "texts", most: MAX_CHOICES })
    );
    let long = Choices::new(vec!["x".repeat(MAX_CHOICE_BYTES), "y".into()]).unwrap_err();
    assert!(matches!(long, GrammarError::TooLarge { unit: "bytes", .. }), "{long}");
    assert_eq!(Pattern::new(""), Err(GrammarError::Empty));
    assert!(matches!(Pattern::new(&"a".repeat(MAX_REGEX_BYTES + 1)), Err(GrammarError::TooLarge { .. })));
}

#[test]
fn a_schema_is_json_whose_order_and_content_count() {
    let schema = |text: &str| Schema::new(text).map(|schema| schema.as_str().to_owned());
    assert_eq!(schema(r#"{ "b": 1, "a": true }"#).unwrap(), r#"{"b":1,"a":true}"#);
    assert_eq!(schema("true").unwrap(), "true");
    assert_eq!(schema("[]"), Err(GrammarError::NotSchema));
    assert!(schema("{").unwrap_err().to_string().starts_with("it is not JSON: EOF"));
    let deep = r#"{"not":"#.repeat(200) + "true" + &"}".repeat(200);
    assert!(schema(&deep).unwrap_err().to_string().contains("recursion limit"));
    assert!(matches!(
        schema(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_SCHEMA_BYTES))),
        Err(GrammarError::TooLarge { .. })
    ));
    let of = |texts: &[&str]| {
        Grammar::Choice(Choices::new(texts.iter().map(|&text| text.to_owned()).collect()).unwrap()).digest()
    };
    assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    assert_ne!(Grammar::Regex(Pattern::new("a").unwrap()).digest(), of(&["a"]));
}
