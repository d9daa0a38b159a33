#!/usr/bin/env bash
# Rules, dashboards and metrics, held to a real Prometheus.
#
#   tests/deploy/monitoring.sh target/release/dept
set -euo pipefail
dept=$(realpath "${1:?the binary}")
cd "$(dirname "$0")/../.."
command -v promtool >/dev/null && command -v prometheus >/dev/null || {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null
}
promtool check rules deploy/prometheus/dept.rules.yml
promtool test rules deploy/prometheus/dept.rules.test.yml
python3 deploy/grafana/make.py --check
tests/deploy/boards.sh
python3 tests/deploy/dashboards.py "$dept"
