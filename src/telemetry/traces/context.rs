//! Who belongs to which trace: W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use std::fmt;

/// Longest `tracestate` that is passed on.
const MAX_STATE: usize = 512;

/// The bit of the flags that says that a span is recorded.
const SAMPLED: u8 = 1;

/// Names a trace; never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// Names a span of a trace; never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl TraceId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u128::MAX))
    }

    /// Its bytes, the first one first.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Whether it is among the share `ratio` of all traces. Whoever decides by the same share decides the same way: it is the
    /// random end of the id that counts, as level 2 of the specification wants.
    pub fn is_among(self, ratio: f64) -> bool {
        const BITS: u32 = 56;
        let random = self.0 & ((1 << BITS) - 1);
        (random as f64) < ratio * (1_u64 << BITS) as f64
    }
}

impl SpanId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX))
    }

    /// Its bytes, the first one first.
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span's place in its trace, as `traceparent` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` where it is none, which the specification wants to be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let [version, trace, span, flags] =
            [text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..55)?];
        let dashes = [2, 35, 52].iter().all(|&at| text.as_bytes()[at] == b'-');
        // A later version may say more behind what this one says.
        let ends = match version {
            "00" => text.len() == 55,
            _ => text.len() == 55 || text.as_bytes()[55] == b'-',
        };
        let version = hex(version)?;
        if !dashes || !ends || version == 0xff {
            return None;
        }
        let (trace, span) = (hex(trace)?, u64::try_from(hex(span)?).ok()?);
        let sampled = hex(flags)? & u128::from(SAMPLED) != 0;
        (trace != 0 && span != 0).then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled })
    }
}

/// A number of at most 32 small hexadecimal digits.
fn hex(text: &str) -> Option<u128> {
    let legal = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if legal { u128::from_str_radix(text, 16).ok() } else { None }
}

/// The `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, if self.sampled { SAMPLED } else { 0 })
    }
}

/// What a caller says of its own span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its place.
    pub context: TraceContext,
    /// What other systems have noted, passed on as it came.
    pub state: String,
}

impl Caller {
    /// From the values of `traceparent` and `tracestate`; `None` where nobody calls, or several do.
    pub fn read<'a>(
        parents: impl IntoIterator<Item = &'a [u8]>,
        states: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let mut parents = parents.into_iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let context = TraceContext::parse(std::str::from_utf8(parent).ok()?.trim())?;
        let states: Option<Vec<&str>> = states
            .into_iter()
            .map(|state| std::str::from_utf8(state).ok().filter(|text| is_state(text)))
            .collect();
        let state = states.map(|states| states.join(",")).filter(|state| state.len() <= MAX_STATE);
        Some(Self { context, state: state.unwrap_or_default() })
    }
}

fn is_state(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace.bytes()[..2], [0x4b, 0xf9]);
        assert_eq!(context.span.bytes()[..2], [0x00, 0xf0]);
        assert!(context.sampled);
        assert!(!TraceContext::parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        assert!(
            TraceContext::parse(&GOOD.replace("-01", "-03")).unwrap().sampled,
            "flags to come are passed over"
        );
        let later = GOOD.replacen("00-", "42-", 1);
        assert_eq!(TraceContext::parse(&later).unwrap(), context);
        assert_eq!(TraceContext::parse(&format!("{later}-more")).unwrap(), context);
    }

    #[test]
    fn what_is_no_context_is_passed_over() {
        let bad = [
            "".to_owned(),
            "00".to_owned(),
            format!("{GOOD}-more"),
            format!("{GOOD}0"),
            GOOD[..54].to_owned(),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replacen("00-", "42-", 1) + "more",
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-01", "-+1"),
            GOOD.replace("-01", "-é"),
            "é".repeat(30),
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_caller_is_one() {
        let read = |parents: &[&'static str], states: &[&'static str]| {
            Caller::read(
                parents.iter().map(|text| text.as_bytes()),
                states.iter().map(|text| text.as_bytes()),
            )
        };
        assert_eq!(read(&[], &["a=1"]), None);
        assert_eq!(read(&[GOOD, GOOD], &[]), None);
        assert_eq!(read(&[GOOD], &["a=1", "b=2"]).unwrap().state, "a=1,b=2");
        assert_eq!(read(&[GOOD], &["a=\u{e9}"]).unwrap().state, "");
        let long = "a=1,".repeat(200).leak();
        assert_eq!(read(&[GOOD], &[long]).unwrap().state, "", "too much is not passed on");
    }

    #[test]
    fn a_share_of_the_traces_is_chosen() {
        let ids: Vec<TraceId> = (0..4000).map(|_| TraceId::random()).collect();
        let chosen = |ratio: f64| ids.iter().filter(|id| id.is_among(ratio)).count();
        assert_eq!((chosen(0.0), chosen(1.0)), (0, 4000));
        assert!((800..1200).contains(&chosen(0.25)), "{}", chosen(0.25));
        assert!(
            ids.iter().all(|id| !id.is_among(0.25) || id.is_among(0.5)),
            "a larger share has the smaller one in it"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,70}") {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
            }
        }
    }
}
