#!/usr/bin/env bash
# Pictures of the dashboards, from some minutes of a real server under load, scraped by a real Prometheus and drawn by Grafana's own
# components (from npm, 650 MB under target/; a Grafana server is not needed).
#
#   tests/deploy/pictures.sh target/release/dept docs/dashboards [SECONDS]
set -euo pipefail
dept=$(realpath "${1:?the binary}")
pictures=$(mkdir -p "${2:?a folder for the pictures}" && realpath "$2")
seconds=${3:-300}
root=$(cd "$(dirname "$0")/../.." && pwd)
modules=$root/target/pictures

missing=()
for pair in prometheus:prometheus chromium:chromium npm:npm node:nodejs pngquant:pngquant; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ ${#missing[@]} -eq 0 ] || {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
mkdir -p "$modules/public"
cp "$root"/tests/deploy/pictures/* "$modules"
(cd "$modules" && npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps)

python3 "$root/tests/deploy/pictures.py" "$dept" "$modules/boards" "$seconds"
(cd "$modules" && node take.mjs boards/overview boards/adapters boards/tenants)
for board in overview adapters tenants; do
    pngquant --force --quality 40-90 --speed 1 --strip --output "$pictures/$board.png" 48 "$modules/boards/$board/board.png"
    size=$(stat -c %s "$pictures/$board.png")
    [ "$size" -lt 150000 ] || { echo "BAD $board.png has $size bytes"; exit 1; }
    echo "ok  $board.png, $size bytes"
done
