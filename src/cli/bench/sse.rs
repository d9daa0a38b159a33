//! Server-sent events, read as the bytes come.

/// Longest event that is kept: far over any answer, so that a peer that is no event stream can't fill the memory.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// An event longer than any answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event of more than {MAX_EVENT_BYTES} bytes")]
pub(super) struct TooLong;

/// Turns chunks of any cut into the `data` of whole events. Comments and other fields are passed over.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    /// What came after the last whole line.
    rest: Vec<u8>,
    /// How much of `rest` is known to hold no line's end.
    searched: usize,
    /// Whether the last line ended with a carriage return, whose line feed may still come.
    after_return: bool,
    /// The data lines of the event under way, each with a line feed behind it.
    data: Vec<u8>,
}

impl SseParser {
    /// Takes a chunk and calls `event` with the data of every event that it completes.
    ///
    /// # Errors
    /// When an event grows over the limit.
    pub(super) fn push(&mut self, chunk: &[u8], mut event: impl FnMut(&str)) -> Result<(), TooLong> {
        self.rest.extend_from_slice(chunk);
        let mut start = 0;
        loop {
            if self.after_return && start < self.rest.len() {
                start += usize::from(self.rest[start] == b'\n');
                self.after_return = false;
            }
            let from = start.max(self.searched);
            let Some(length) = self.rest[from..].iter().position(|&byte| matches!(byte, b'\n' | b'\r'))
            else {
                break;
            };
            let end = from + length;
            self.after_return = self.rest[end] == b'\r';
            take_line(&self.rest[start..end], &mut self.data, &mut event);
            start = end + 1;
        }
        self.rest.drain(..start);
        self.searched = self.rest.len();
        if self.rest.len() + self.data.len() > MAX_EVENT_BYTES { Err(TooLong) } else { Ok(()) }
    }
}

/// One line: a piece of data, or, when empty, the end of the event.
fn take_line(line: &[u8], data: &mut Vec<u8>, event: &mut impl FnMut(&str)) {
    if line.is_empty() {
        if data.pop().is_some() {
            event(&String::from_utf8_lossy(data));
            data.clear();
        }
        return;
    }
    let value = match line.strip_prefix(b"data") {
        Some([b':', value @ ..]) => value,
        Some([]) => &[],
        _ => return,
    };
    data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    data.push(b'\n');
}
