#!/usr/bin/env python3
"""Writes the dashboards: overview.json, adapters.json, tenants.json. `--check` only compares.

A dashboard's JSON is long and repeats itself; what is decided here is short: which question a panel answers, by which query, in
which unit. Only the standard library is needed.
"""
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
RATE = "$__rate_interval"
MINE = 'job=~"$job",instance=~"$instance"'


def panel(title, unit, *queries, kind="timeseries", width=8, height=8, about="", stack=False, most=None):
    """A panel with `queries` (expression, legend)."""
    custom = {"drawStyle": "line", "fillOpacity": 12, "lineWidth": 2, "showPoints": "never", "spanNulls": True}
    if stack:
        custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 40, "lineWidth": 1}
    defaults = {"unit": unit, "min": 0, "custom": custom if kind == "timeseries" else {}}
    if most is not None:
        defaults["max"] = most
    made = {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend,
             "datasource": {"type": "prometheus", "uid": "${datasource}"},
             **({"format": "table", "instant": True} if kind == "table" else {})}
            for at, (expr, legend) in enumerate(queries)
        ],
        "size": (width, height),
    }
    if kind == "timeseries":
        made["options"] = {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "stat":
        made["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
            "textMode": "auto", "wideLayout": True,
        }
    return made


def quantiles(metric, by="le"):
    return [
        (f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{MINE}}}[{RATE}])))", f"p{name}")
        for q, name in ((0.5, "50"), (0.95, "95"), (0.99, "99"))
    ]


def rate(metric, by="", more=""):
    inside = f"rate({metric}{{{MINE}{more}}}[{RATE}])"
    return f"sum by ({by}) ({inside})" if by else f"sum({inside})"


def total(metric, more=""):
    return f"sum({metric}{{{MINE}{more}}})"


OVERVIEW = ("dept overview", "What clients see, what the engine does, what runs short", [
    ("What clients see", [
        panel("Requests", "reqps", (rate("dept_requests_total", "outcome", ',endpoint=~"/v1/.*"'), "{{outcome}}"), stack=True,
              about="API requests by how they ended: ok, cancelled by the client, or an error's code (docs/errors.md)."),
        panel("Time to first token", "s", *quantiles("dept_time_to_first_token_seconds"),
              about="From submission to the first token, queue and prompt included."),
        panel("Time between tokens", "s", *quantiles("dept_inter_token_latency_seconds"),
              about="What a reader of a stream waits for each token after the first."),
        panel("Time of requests", "s", *quantiles("dept_request_duration_seconds")),
        panel("Turned away", "reqps", (rate("dept_rejected_total", "reason"), "{{reason}}"), stack=True,
              about="Before they started. overloaded: the queue was full. quota_exceeded: a tenant's own limit."),
        panel("Slow first tokens, burn of the promise", "percentunit",
              (f'1 - sum(rate(dept_time_to_first_token_seconds_bucket{{{MINE},le="0.5"}}[{RATE}])) / '
               f"sum(rate(dept_time_to_first_token_seconds_count{{{MINE}}}[{RATE}]))", "over half a second"), most=1),
    ]),
    ("What the engine does", [
        panel("Tokens", "short", (rate("dept_prompt_tokens_total"), "prompt"), (rate("dept_virtual_tokens_total"), "soft prompt"),
              (rate("dept_generated_tokens_total"), "generated"), stack=True, about="Tokens a second."),
        panel("Sequences", "short", (total("dept_requests_running"), "running"), (total("dept_requests_waiting"), "waiting")),
        panel("Time in the queue", "s", *quantiles("dept_queue_duration_seconds")),
        panel("Time of a step", "s", (
            f"histogram_quantile(0.95, sum by (le, phase) (rate(dept_step_duration_seconds_bucket{{{MINE}}}[{RATE}])))",
            "{{phase}} p95"), about="By what the step worked on. A decode step bounds the time between tokens."),
        panel("Sequences in a step", "short", *quantiles("dept_batch_sequences")),
        panel("Rows in a step", "short", *quantiles("dept_batch_tokens")),
        panel("Busy", "percentunit", (rate("dept_step_duration_seconds_sum"), "share of time in steps"),
              about="Sum over replicas of the share of time in which a step runs. At 1 a replica computes all the time."),
        panel("Age of the present step", "s", (f"max(dept_engine_step_age_seconds{{{MINE}}})", "oldest"),
              about="Grows without end when a step is stuck; /health/live answers 503 after --stuck-after."),
        panel("Prefix cache", "percentunit", (
            f"{rate('dept_prefix_cache_hits_total')} / {rate('dept_prefix_cache_queries_total')}", "rows found"), most=1,
            about="Prompt rows whose K/V were there already."),
    ]),
    ("What runs short", [
        panel("K/V memory", "percentunit", (f"dept_kv_cache_usage_ratio{{{MINE}}}", "{{instance}}"), most=1),
        panel("Preemptions", "short", (rate("dept_preemptions_total"), "sequences a second"),
              about="Sequences that gave their K/V back and are computed again: K/V memory is too small."),
        panel("Memory for adapters", "bytes", (f'sum by (tier) (dept_adapter_bytes{{{MINE}}})', "{{tier}}")),
        panel(
            "Memory of the process",
            "bytes",
            (f"process_resident_memory_bytes{{{MINE}}}", "{{instance}}"),
            (f"dept_allocator_bytes{{{MINE}}}", "{{instance}}, allocator: {{state}}"),
        ),
        panel("Cores", "short", (f"rate(process_cpu_seconds_total{{{MINE}}}[{RATE}])", "{{instance}}")),
        panel("File descriptors", "percentunit",
              (f"process_open_fds{{{MINE}}} / process_max_fds{{{MINE}}}", "{{instance}}"), most=1),
    ]),
])

ADAPTERS = ("dept adapters", "Which adapters are used, how they come into memory and leave it", [
    ("Use", [
        panel("Sequences by adapter", "reqps", (f"topk(12, {rate('dept_adapter_requests_total', 'adapter')})", "{{adapter}}"),
              stack=True, width=12, about="The first 100 adapters have a label of their own, the rest counts as other."),
        panel("Running and waiting now", "dateTimeFromNow",
              (f"max by (running_lora_adapters, waiting_lora_adapters) (dept_lora_requests_info{{{MINE}}}) * 1000", ""),
              kind="table", width=12, about="What the endpoint picker of the Gateway API Inference Extension reads."),
    ]),
    ("Life", [
        panel("Adapters", "short", (f"sum by (tier) (dept_adapters{{{MINE}}})", "{{tier}}"),
              about="store: known by name. host: ready in memory."),
        panel("Bytes", "bytes", (f"sum by (tier) (dept_adapter_bytes{{{MINE}}})", "{{tier}}")),
        panel("Loads", "ops", (rate("dept_adapter_loads_total", "outcome"), "{{outcome}}"), stack=True,
              about="An adapter is loaded when a request needs it and it is not in memory."),
        panel("Evictions", "ops", (rate("dept_adapter_evictions_total", "tier"), "{{tier}}"),
              about="Adapters that gave their place to others. Near the rate of requests: --adapter-host-bytes is too small."),
        panel("Hits", "percentunit", (
            f"clamp_min(1 - {rate('dept_adapter_loads_total')} / {rate('dept_adapter_requests_total')}, 0)", "in memory already"),
            most=1),
        panel("From upload to use", "s", *quantiles("dept_adapter_swap_duration_seconds"),
              about="From an upload's last byte to the moment at which requests get the new version."),
    ]),
])

TENANTS = ("dept tenants", "Who uses how much, and who is turned away", [
    ("Use", [
        panel("Requests by tenant", "reqps", (rate("dept_tenant_requests_total", "tenant", ',tenant=~"$tenant"'), "{{tenant}}"),
              stack=True, width=12),
        panel("Tokens by tenant", "short", (rate("dept_tenant_tokens_total", "tenant", ',tenant=~"$tenant"'), "{{tenant}}"),
              stack=True, width=12, about="Prompt, soft-prompt and generated tokens a second, as quotas count them."),
        panel("Tokens by kind", "short", (rate("dept_tenant_tokens_total", "kind", ',tenant=~"$tenant"'), "{{kind}}"), stack=True,
              width=12),
        panel("How requests end", "reqps", (
            rate("dept_tenant_requests_total", "tenant, outcome", ',tenant=~"$tenant"'), "{{tenant}} {{outcome}}"), width=12),
    ]),
    ("Limits", [
        panel("Quota used up", "reqps", (
            rate("dept_tenant_requests_total", "tenant", ',tenant=~"$tenant",outcome="quota_exceeded"'), "{{tenant}}"), width=12,
            about="Requests answered 429 because the tenant's rate, tokens or places were used."),
        panel("Tokens in the time shown", "short", (
            f'sum by (tenant, kind) (increase(dept_tenant_tokens_total{{{MINE},tenant=~"$tenant"}}[$__range]))',
            ""), kind="table", width=12),
    ]),
])


def variable(name, query, label):
    return {
        "name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name}, "refresh": 2, "includeAll": True, "multi": True, "allValue": ".+",
        "current": {"text": "All", "value": "$__all"}, "sort": 1,
    }


def laid_out(rows):
    """Panels with their places on a grid of 24 columns."""
    panels, y = [], 0
    for title, held in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        y, x, row = y + 1, 0, 0
        for one in held:
            width, height = one["size"]
            if x + width > 24:
                x, y = 0, y + row
            placed = {key: value for key, value in one.items() if key != "size"}
            panels.append(placed | {"gridPos": {"h": height, "w": width, "x": x, "y": y}})
            x, row = x + width, height
        y += row
    return [panel | {"id": at + 1} for at, panel in enumerate(panels)]


def dashboard(uid, title, about, rows, tenants=False):
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
         "includeAll": False, "multi": False},
        variable("job", "label_values(dept_build_info, job)", "Job"),
        variable("instance", 'label_values(dept_build_info{job=~"$job"}, instance)', "Instance"),
    ]
    if tenants:
        variables.append(variable("tenant", 'label_values(dept_tenant_requests_total{job=~"$job"}, tenant)', "Tenant"))
    return {
        "uid": uid, "title": title, "description": about, "tags": ["dept"], "schemaVersion": 41, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": variables}, "annotations": {"list": []},
        "links": [{"title": "dept", "type": "dashboards", "tags": ["dept"], "asDropdown": False, "includeVars": True,
                   "keepTime": True, "icon": "external link", "targetBlank": False, "tooltip": "", "url": ""}],
        "panels": laid_out(rows),
    }


def main():
    check = "--check" in sys.argv
    stale = []
    for name, made in (
        ("overview", dashboard("dept-overview", *OVERVIEW)),
        ("adapters", dashboard("dept-adapters", *ADAPTERS)),
        ("tenants", dashboard("dept-tenants", *TENANTS, tenants=True)),
    ):
        path, text = HERE / f"{name}.json", json.dumps(made, indent=2) + "\n"
        if not check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what deploy/grafana/make.py writes; run it and commit what it wrote")


if __name__ == "__main__":
    main()
