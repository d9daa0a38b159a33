use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    LogError, LogFormat, Metrics, Phase, TokenKind, instruments::ADAPTER_LABELS, start_logging,
    tenants::TENANT_LABELS,
};
use crate::{contract, domain::TenantId};

/// The `# HELP` or `# TYPE` lines of an exposition, by metric.
fn said<'a>(text: &'a str, what: &str) -> BTreeMap<&'a str, &'a str> {
    let start = format!("# {what} ");
    text.lines().filter_map(|line| line.strip_prefix(&start)?.split_once(' ')).collect()
}

#[test]
fn docs_metrics_is_the_list() {
    let rows = Metrics::list().into_iter().map(|m| {
        let labels = if m.labels.is_empty() { "-".into() } else { m.labels.join(", ") };
        [format!("`{}`", m.name), m.kind.into(), labels, m.help]
    });
    let text = format!(
        "# Metrics\n\nServed as Prometheus text on `GET /metrics` of the admin address. Times are in seconds. Those that start with \
         `process_` are there on Linux.\n\nDashboards, alerts and what to do at each: [deploy/](../deploy/README.md).\n\n{}",
        contract::table(["name", "type", "labels", "help"], rows)
    );
    contract::hold("docs/metrics.md", &text);
}

#[test]
fn the_exposition_says_what_the_list_says() {
    let metrics = Metrics::default();
    metrics.requests.count("/v1/generate", "ok");
    metrics.rejected.count("overloaded");
    metrics.adapter_requests.count_many(&"sst2".parse().unwrap(), 1);
    metrics.tenant_requests.count(&TenantId::default_tenant(), "ok");
    metrics.tenant_tokens.count(&TenantId::default_tenant(), TokenKind::Prompt, 1);
    metrics.reloads.count("tls", true);
    let text = metrics.render();
    let (kinds, helps) = (said(&text, "TYPE"), said(&text, "HELP"));
    let list = Metrics::list();
    let there = list.iter().filter(|m| cfg!(target_os = "linux") || !m.name.starts_with("process_"));
    let (there, names): (Vec<_>, Vec<_>) = there.map(|m| (m, m.name)).unzip();
    assert_eq!(kinds.keys().copied().collect::<BTreeSet<_>>(), names.into_iter().collect());
    for m in there {
        assert_eq!(kinds[m.name], m.kind);
        assert_eq!(helps[m.name], m.help);
    }
}

#[test]
fn times_start_at_a_hundred_microseconds_and_phases_have_their_label() {
    let metrics = Metrics::default();
    metrics.step_duration.observe(Phase::Decode, Duration::from_micros(90));
    metrics.batch_tokens.observe(3);
    let text = metrics.render();
    for line in [
        r#"dept_step_duration_seconds_bucket{phase="decode",le="0.0001"} 1"#,
        r#"dept_step_duration_seconds_count{phase="encode"} 0"#,
        r#"dept_batch_tokens_bucket{le="2"} 0"#,
        r#"dept_batch_tokens_bucket{le="4"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn late_adapters_share_one_label_and_early_ones_keep_theirs() {
    let metrics = Metrics::default();
    for i in 0..ADAPTER_LABELS + 5 {
        metrics.adapter_requests.count_many(&format!("a{i}").parse().unwrap(), 1);
    }
    metrics.adapter_requests.count_many(&"a0".parse().unwrap(), 1);
    let text = metrics.render();
    assert!(text.contains(r#"dept_adapter_requests_total{adapter="a0"} 2"#), "{text}");
    assert!(text.contains(r#"dept_adapter_requests_total{adapter="other"} 5"#), "{text}");
    assert_eq!(text.matches("dept_adapter_requests_total{").count(), ADAPTER_LABELS + 1);
}

#[test]
fn late_tenants_share_one_label() {
    let metrics = Metrics::default();
    for i in 0..TENANT_LABELS + 5 {
        metrics.tenant_tokens.count(&format!("t{i}").parse().unwrap(), TokenKind::Generated, 2);
    }
    metrics.tenant_tokens.count(&"t0".parse().unwrap(), TokenKind::Prompt, 7);
    let text = metrics.render();
    for line in [
        r#"dept_tenant_tokens_total{kind="prompt",tenant="t0"} 7"#,
        r#"dept_tenant_tokens_total{kind="generated",tenant="other"} 10"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("dept_tenant_tokens_total{").count(), TENANT_LABELS + 2);
}

#[test]
fn a_malformed_filter_is_named() {
    let error = start_logging(LogFormat::Text, "dept=loud").unwrap_err();
    assert!(matches!(&error, LogError::Filter { filter, .. } if filter == "dept=loud"), "{error}");
}
