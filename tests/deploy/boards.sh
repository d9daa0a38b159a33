#!/usr/bin/env bash
# The dashboards, held to the types of Grafana and of its panels (from npm, some seconds). No Grafana server is needed.
#
#   tests/deploy/boards.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
for pair in node:nodejs npm:npm; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ ${#missing[@]} -eq 0 ] || {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
modules=target/boards
mkdir -p "$modules"
cp tests/deploy/boards/* "$modules"
(cd "$modules" && npm install --silent --no-audit --no-fund --ignore-scripts --no-package-lock)
node "$modules/check.mjs" deploy/grafana/*.json
