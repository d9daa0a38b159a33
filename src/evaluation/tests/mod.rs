use super::*;
use crate::training::Entry;

fn scored(pairs: &[(&str, &str)]) -> Vec<Scored> {
    let one = |(target, answer): &(&str, &str)| Scored {
        targets: vec![(*target).to_owned()],
        answer: (*answer).to_owned(),
        scores: Vec::new(),
    };
    pairs.iter().map(one).collect()
}

fn value(metric: Metric, pairs: &[(&str, &str)]) -> f64 {
    let scored = scored(pairs);
    metric.of(&scored.iter().collect::<Vec<_>>())
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "expected {expected}, found {found}");
}

const BINARY: &[(&str, &str)] =
    &[("1", "1"), ("1", "0"), ("0", " 0 "), ("0", "1"), ("1", "1"), ("0", "0"), ("1", "x"), ("0", "0")];

#[test]
fn labels() {
    close(value(Metric::Accuracy, BINARY), 5.0 / 8.0);
    // 2 hits; 4 are of the class and 3 are said to be.
    close(value(Metric::F1, BINARY), 4.0 / 7.0);
    // scikit-learn's matthews_corrcoef of the first six: tp 2, tn 2, fp 1, fn 1.
    close(value(Metric::Mcc, &BINARY[..6]), 1.0 / 3.0);
    close(value(Metric::Mcc, &[("1", "1"), ("0", "1")]), 0.0);
    close(value(Metric::F1, &[("a", "a"), ("b", "b"), ("c", "a")]), (2.0 / 3.0 + 1.0) / 3.0);
    close(value(Metric::Accuracy, &[]), 0.0);
}

#[test]
fn numbers() {
    let pairs = [("1.0", "2"), ("2.0", "4"), ("3.0", "6")];
    close(value(Metric::Pearson, &pairs), 1.0);
    close(value(Metric::Spearman, &[("1", "1"), ("2", "8"), ("3", "27")]), 1.0);
    // Ranks 1.5, 1.5, 3 against 1, 2, 3.
    close(value(Metric::Spearman, &[("1", "5"), ("2", "5"), ("3", "6")]), 3f64.sqrt() / 2.0);
    close(value(Metric::Pearson, &[("1", "none"), ("2", "nan")]), 0.0);
}

#[test]
fn texts() {
    close(value(Metric::ExactMatch, &[("The Cat", "cat."), ("dog", "a cat")]), 0.5);
    close(value(Metric::SquadF1, &[("the black cat", "a cat")]), 2.0 / 3.0);
    close(value(Metric::SquadF1, &[("cat cat", "cat")]), 2.0 / 3.0);
    close(value(Metric::SquadF1, &[("the", "an")]), 1.0);
    let several = Scored {
        targets: vec!["red".to_owned(), "dark blue".to_owned()],
        answer: "blue".to_owned(),
        scores: Vec::new(),
    };
    close(Metric::SquadF1.of(&[&several]), 2.0 / 3.0);
}

#[test]
fn areas() {
    assert_eq!(auc(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)]), Some(0.75));
    assert_eq!(auc(&[(1.0, false), (1.0, true)]), Some(0.5));
    assert_eq!(auc(&[(1.0, true)]), None);
}

#[test]
fn intervals_hold_the_value_and_narrow_with_n() {
    let width = |times: usize| {
        let all = scored(&BINARY.repeat(times));
        let [low, high] = interval_95(Metric::Accuracy, &all);
        assert!(low <= 0.625 && 0.625 <= high, "{low} {high}");
        assert_eq!(interval_95(Metric::Accuracy, &all), [low, high]);
        high - low
    };
    // 1.96 * 2 * sqrt(0.625 * 0.375 / n) is 0.095 for n = 400.
    let wide = width(50);
    assert!((0.08..0.11).contains(&wide), "{wide}");
    assert!(width(500) < 0.4 * wide);
}

#[test]
fn reports_have_the_majority_and_who_is_taken_for_whom() {
    let mut answers = scored(BINARY);
    answers.push(Scored { targets: vec!["1".to_owned()], answer: "1".to_owned(), scores: Vec::new() });
    let report = Report::of(Metric::Accuracy, &answers);
    let (label, majority) = report.majority.clone().unwrap();
    assert_eq!(label, "1");
    close(majority, 5.0 / 9.0);
    let confusion = report.confusion.clone().unwrap();
    assert_eq!(confusion.labels, ["0", "1"]);
    assert_eq!(confusion.counts, [[3, 1, 0], [1, 3, 1]]);
    assert_eq!(report.auc, None);
    let text = report.to_string();
    assert!(
        text.contains("accuracy     0.6667") && text.contains("always '1'") && text.contains("(other)"),
        "{text}"
    );
    let card = report.measurement("d".to_owned(), None);
    assert_eq!((card.value, card.n, card.majority), (0.6667, 9, Some(0.5556)));
}

#[test]
fn likelihoods_give_an_auc_and_free_texts_no_table() {
    let one = |target: &str, lead: f64| Scored {
        targets: vec![target.to_owned()],
        answer: if lead > 0.0 { "1" } else { "0" }.to_owned(),
        scores: vec![("0".to_owned(), -1.0), ("1".to_owned(), lead - 1.0)],
    };
    let answers = [one("0", -0.5), one("1", -0.2), one("1", 0.4), one("0", 0.1)];
    assert_eq!(Report::of(Metric::Accuracy, &answers).auc, Some(0.75));
    let three = |target: &str, scores: [f64; 3]| Scored {
        targets: vec![target.to_owned()],
        answer: "a".to_owned(),
        scores: ["a", "b", "c"].map(str::to_owned).into_iter().zip(scores).collect(),
    };
    // Leads of a: 2, -1, -3; of b: -2, 1, -1; of c, which nothing is: none that counts.
    let answers =
        [three("a", [-1.0, -3.0, -4.0]), three("a", [-3.0, -2.0, -4.0]), three("b", [-5.0, -3.0, -2.0])];
    close(Report::of(Metric::Accuracy, &answers).auc.unwrap(), 0.75);
    let free =
        scored(&[("one text", "a"), ("another", "b"), ("a third", "c"), ("a fourth", "d"), ("five", "e")]);
    let report = Report::of(Metric::SquadF1, &free);
    assert_eq!((report.majority, report.confusion), (None, None));
}

#[test]
fn the_page_stands_alone() {
    let mut answers = scored(BINARY);
    answers[0].targets = vec!["<b>".to_owned()];
    answers.extend(scored(&[("<b>", "<b>"); 4]));
    let report = Report::of(Metric::Accuracy, &answers);
    let step = |step, loss, value| Entry { step, loss, value, ..Entry::default() };
    let journal = [
        step(1, Some(2.0), None),
        step(2, Some(1.0), None),
        step(2, None, Some(0.5)),
        step(4, None, Some(0.7)),
    ];
    let page = page("a & b", &report, &journal);
    assert!(page.contains("<title>a &amp; b</title>") && page.contains("&lt;b&gt;") && !page.contains("<b>"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("2.0000") && page.contains("step 1") && page.contains("0.7000"));
    assert!(!page.contains("http") && !page.contains("<script"), "nothing comes from elsewhere");
}
