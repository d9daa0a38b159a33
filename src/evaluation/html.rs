//! A report as one page without scripts, fonts or pictures from elsewhere: plots are inline SVG.

use std::fmt::Write;

use super::{confusion::Confusion, report::Report};
use crate::training::Entry;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}.big{font-size:2.4rem;font-weight:600}.quiet{color:#57606a}svg{width:100%;height:auto}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}.quiet{color:#8b949e}}";

/// The page of a report, with the curve of the training that made the adapter where its journal is at hand.
pub fn page(title: &str, report: &Report, journal: &[Entry]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape(title)
    );
    let [low, high] = report.interval;
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "<p><span class=\"big\">{:.4}</span> {} <span class=\"quiet\">95 % {low:.4} to {high:.4}, n = {}</span></p>",
        report.value,
        report.metric.as_str(),
        report.n
    );
    if let Some((label, value)) = &report.majority {
        let _ = writeln!(out, "<p class=\"quiet\">always “{}”: {value:.4}</p>", escape(label));
    }
    if let Some(auc) = report.auc {
        let _ = writeln!(out, "<p class=\"quiet\">AUC {auc:.4}</p>");
    }
    if let Some(confusion) = &report.confusion {
        out.push_str(&table(confusion));
    }
    let losses = points(journal, |entry| entry.loss);
    let values = points(journal, |entry| entry.value);
    if losses.len() > 1 {
        out.push_str(&plot("Training loss", &losses));
    }
    if values.len() > 1 {
        out.push_str(&plot("Evaluations while training", &values));
    }
    out.push_str("</body></html>\n");
    out
}

fn points(journal: &[Entry], value: impl Fn(&Entry) -> Option<f64>) -> Vec<(f64, f64)> {
    journal.iter().filter_map(|entry| Some((entry.step as f64, value(entry)?))).collect()
}

/// The confusion, each cell shaded by its share of the row.
fn table(confusion: &Confusion) -> String {
    let mut out = "<h2>Confusion</h2>\n<table><tr><th>target \\ answer</th>".to_owned();
    confusion.columns().for_each(|name| {
        let _ = write!(out, "<th>{}</th>", escape(name));
    });
    out.push_str("</tr>\n");
    for (label, counts) in confusion.labels.iter().zip(&confusion.counts) {
        let _ = write!(out, "<tr><th>{}</th>", escape(label));
        let total = counts.iter().sum::<usize>().max(1) as f64;
        for &count in counts {
            let share = count as f64 / total;
            let _ = write!(out, "<td style=\"background:rgba(9,105,218,{share:.3})\">{count}</td>");
        }
        out.push_str("</tr>\n");
    }
    out + "</table>\n"
}

/// A line through `points`, in order of steps, with the bounds of both axes.
fn plot(title: &str, points: &[(f64, f64)]) -> String {
    const SIZE: (f64, f64) = (640.0, 220.0);
    const LEFT: f64 = 56.0;
    const EDGE: f64 = 20.0;
    let bounds = |values: &dyn Fn(&(f64, f64)) -> f64| {
        let low = points.iter().map(values).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(values).fold(f64::NEG_INFINITY, f64::max);
        (low, if high > low { high } else { low + 1.0 })
    };
    let ((left, right), (low, high)) = (bounds(&|p| p.0), bounds(&|p| p.1));
    let x = |value: f64| LEFT + (value - left) / (right - left) * (SIZE.0 - LEFT - EDGE);
    let y = |value: f64| SIZE.1 - EDGE - (value - low) / (high - low) * (SIZE.1 - 2.0 * EDGE);
    let line: Vec<String> =
        points.iter().map(|&(step, value)| format!("{:.1},{:.1}", x(step), y(value))).collect();
    let (width, height, bottom, end, foot) = (SIZE.0, SIZE.1, SIZE.1 - EDGE, SIZE.0 - EDGE, SIZE.1 - 4.0);
    let (line, head) = (line.join(" "), EDGE + 4.0);
    format!(
        "<h2>{title}</h2>\n<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" fill=\"none\" stroke=\"currentColor\">\
         <path d=\"M{LEFT},{EDGE}V{bottom}H{end}\" stroke-opacity=\".3\"/><polyline points=\"{line}\" stroke=\"#0969da\" stroke-width=\"1.5\"/>\
         <g fill=\"currentColor\" stroke=\"none\" font-size=\"12\"><text x=\"4\" y=\"{head}\">{high:.4}</text><text x=\"4\" y=\"{bottom}\">{low:.4}</text>\
         <text x=\"{LEFT}\" y=\"{foot}\">step {left}</text><text x=\"{end}\" y=\"{foot}\" text-anchor=\"end\">{right}</text></g></svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
