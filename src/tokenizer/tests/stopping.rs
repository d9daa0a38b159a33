use proptest::prelude::*;

use super::*;

fn stops(list: &[&str]) -> StopStrings {
    StopStrings::new(list.iter().map(|s| (*s).to_owned()))
}

fn released(text: &str, stopped: bool) -> Released {
    Released { text: text.to_owned(), stopped }
}

#[test]
fn a_possible_beginning_is_held_back() {
    let mut stop = stops(&["\n\n", "END"]);
    assert_eq!(stop.push("one E"), released("one ", false));
    assert_eq!(stop.push("N"), released("", false));
    assert_eq!(stop.push("T\n"), released("ENT", false));
    assert_eq!(stop.push("\nrest"), released("", true));
    assert_eq!(stop.push("more"), released("", true));
    assert_eq!(stop.flush(), "");
}

#[test]
fn the_end_of_the_text_releases_the_rest() {
    let mut stop = stops(&["abc", ""]);
    assert_eq!(stop.push("xab"), released("x", false));
    assert_eq!(stop.flush(), "ab");
    assert_eq!(stops(&[]).push("all"), released("all", false));
}

#[test]
fn the_match_that_ends_first_wins_however_the_text_is_split() {
    for pieces in [&["abcd"][..], &["ab", "cd"], &["a", "b", "c", "d"]] {
        let mut stop = stops(&["abcd", "bc"]);
        let outcomes: Vec<_> = pieces.iter().map(|p| stop.push(p)).collect();
        assert!(outcomes.last().unwrap().stopped);
        assert_eq!(outcomes.into_iter().map(|r| r.text).collect::<String>(), "a");
    }
    assert_eq!(stops(&["bc", "abc"]).push("xabc"), released("x", true));
    assert_eq!(stops(&["中"]).push("é中é"), released("é", true));
}

/// Reads the text a character at a time and looks at everything read so far.
fn naive(text: &str, stops: &[String]) -> (String, bool) {
    for (i, c) in text.char_indices() {
        let read = &text[..i + c.len_utf8()];
        let longest = stops.iter().filter(|s| !s.is_empty() && read.ends_with(*s)).map(|s| s.len()).max();
        if let Some(length) = longest {
            return (read[..read.len() - length].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_split_finds_what_a_plain_search_finds(
        pieces in proptest::collection::vec("[abé]{0,4}", 0..8),
        list in proptest::collection::vec("[abé]{0,4}", 0..4),
    ) {
        let mut stop = StopStrings::new(list.clone());
        let (mut text, mut stopped) = (String::new(), false);
        for piece in &pieces {
            let step = stop.push(piece);
            text.push_str(&step.text);
            stopped = step.stopped;
        }
        text.push_str(&stop.flush());
        prop_assert_eq!((text, stopped), naive(&pieces.concat(), &list));
    }
}
