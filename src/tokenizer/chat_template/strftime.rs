//! C's `strftime`, as far as chat templates use it.

use std::fmt::Write;

use crate::domain::UtcTime;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `time` in the form of `format`. A directive that is not known stays as it is written.
pub(super) fn format(format: &str, time: &UtcTime) -> String {
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        // `%-d` is `%d` without its leading zero.
        let bare = rest.as_str().starts_with('-');
        if bare {
            rest.next();
        }
        match rest.next() {
            Some(directive) => write(directive, bare, time, &mut text),
            None => text.push('%'),
        }
    }
    text
}

fn write(directive: char, bare: bool, time: &UtcTime, text: &mut String) {
    let month = MONTHS[time.month as usize - 1];
    let day = DAYS[time.weekday as usize];
    let hour12 = (time.hour + 11) % 12 + 1;
    let mut number = |value: u64, digits: usize| {
        let width = if bare { 0 } else { digits };
        write!(text, "{value:0width$}").expect("a string takes all");
    };
    match directive {
        'Y' => number(time.year, 4),
        'y' => number(time.year % 100, 2),
        'm' => number(time.month, 2),
        'd' => number(time.day, 2),
        'j' => number(time.day_of_year, 3),
        'H' => number(time.hour, 2),
        'I' => number(hour12, 2),
        'M' => number(time.minute, 2),
        'S' => number(time.second, 2),
        'e' => text.push_str(&format!("{:2}", time.day)),
        'B' => text.push_str(month),
        'b' | 'h' => text.push_str(&month[..3]),
        'A' => text.push_str(day),
        'a' => text.push_str(&day[..3]),
        'p' => text.push_str(if time.hour < 12 { "AM" } else { "PM" }),
        'F' => text.push_str(&format("%Y-%m-%d", time)),
        'T' => text.push_str(&format("%H:%M:%S", time)),
        'D' => text.push_str(&format("%m/%d/%y", time)),
        'Z' => text.push_str("UTC"),
        '%' => text.push('%'),
        other => text.extend(['%', other]),
    }
}
