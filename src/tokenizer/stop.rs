/// What a piece of text released.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Released {
    /// Text that may be given out now.
    pub text: String,
    /// Whether a stop string was met. `text` then ends before it, and nothing comes after.
    pub stopped: bool,
}

/// Looks for stop strings in text that comes in pieces. A tail that may be the beginning of a stop string is
/// held back. The match that ends first wins, as if the text came character by character; of matches with one
/// end the longest.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Empty strings are left out: they would stop everything.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes the next piece. After a stop it releases nothing more.
    pub fn push(&mut self, piece: &str) -> Released {
        if self.stopped {
            return Released { text: String::new(), stopped: true };
        }
        if self.stops.is_empty() {
            return Released { text: piece.to_owned(), stopped: false };
        }
        let searched = self.held.len();
        self.held.push_str(piece);
        if let Some(start) = self.first_match(searched) {
            self.stopped = true;
            self.held.truncate(start);
            return Released { text: std::mem::take(&mut self.held), stopped: true };
        }
        let tail = self.held.split_off(self.held.len() - self.possible_beginning());
        Released { text: std::mem::replace(&mut self.held, tail), stopped: false }
    }

    /// Ends the text; releases what was held back.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the match begins whose end comes first, looking at ends after `searched` bytes.
    fn first_match(&self, searched: usize) -> Option<usize> {
        let ends = self.held[searched..].char_indices().map(|(i, c)| searched + i + c.len_utf8());
        ends.into_iter().find_map(|end| {
            let read = &self.held[..end];
            let longest = self.stops.iter().filter(|s| read.ends_with(s.as_str())).map(String::len).max()?;
            Some(end - longest)
        })
    }

    /// Bytes at the end of the held text that a stop string may begin with.
    fn possible_beginning(&self) -> usize {
        let beginnings =
            self.stops.iter().flat_map(|stop| stop.char_indices().skip(1).map(move |(end, _)| &stop[..end]));
        beginnings.filter(|b| self.held.ends_with(*b)).map(str::len).max().unwrap_or(0)
    }
}
