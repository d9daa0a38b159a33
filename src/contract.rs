//! The contract lives in committed files; tests hold them against the code.
//!
//! After a wanted change, `UPDATE_CONTRACT=1 cargo test` writes them anew; the diff is the review.

use std::{env, fs, path::Path};

/// Compares `rendered`, what the code says, with the committed `file`, or rewrites it when asked to.
#[expect(clippy::disallowed_methods, reason = "a test is told what to do")]
pub(crate) fn hold(file: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("UPDATE_CONTRACT").is_some() {
        fs::write(&path, rendered).unwrap_or_else(|e| panic!("cannot write {file}: {e}"));
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {file}: {e}"));
    for (line, (theirs, ours)) in committed.lines().zip(rendered.lines()).enumerate() {
        assert_eq!(theirs, ours, "{file}, line {}: run UPDATE_CONTRACT=1 cargo test", line + 1);
    }
    assert_eq!(committed, rendered, "{file} has another length: run UPDATE_CONTRACT=1 cargo test");
}

/// A Markdown table, the cells escaped.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(String::from)) + &line(&head.map(|_| "---".into()));
    for row in rows {
        text += &line(&row.map(|cell| cell.replace('|', "\\|")));
    }
    text
}
