#!/bin/sh
# Every figure of benches/README.md but training's, which needs data, on this machine, as Markdown on standard output; progress goes to standard error.
#
#   benches/all.sh [--small]
#
# --small only shows that all of it works: its figures mean nothing. PEERS_VENV and DEPT_BIN as for peers/run.sh.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${DEPT_BIN:-}" ]; then
    cargo build --locked --release --quiet
    DEPT_BIN=${CARGO_TARGET_DIR:-target}/release/dept
fi
export DEPT_BIN
cargo bench --locked --quiet --no-run --bench engine --bench doors --bench dept_and_pt --bench linear --bench attention

section() { printf '\n### %s\n\n' "$1"; printf '%s (%s)\n' "$1" "$(date +%T)" >&2; }

section "Many adapters beside one"
python3 benches/peers/tenants.py --dept "$DEPT_BIN" "$@"
section "Adapters that come and go"
python3 benches/peers/live.py --dept "$DEPT_BIN" "$@"
section "Scheduler and engine beside the model"
cargo bench --locked --quiet --bench engine -- "$@"
section "HTTP and gRPC beside the engine"
cargo bench --locked --quiet --bench doors -- "$@"
section "DePT beside PT at equal parameters"
cargo bench --locked --quiet --bench dept_and_pt -- "$@"
section "Mixed load on the uncut flan-t5-small"
benches/peers/run.sh --uncut "$@"
section "Decoders beside peers"
benches/peers/decoders.sh "$@"
section "Start"
python3 benches/start.py --dept "$DEPT_BIN" models/flan-t5-small-en target/models/flan-t5-small target/models/smollm2/*.gguf "$@"
section "From one thread to two"
python3 benches/threads.py --dept "$DEPT_BIN" models/flan-t5-small-en target/models/smollm2/*.gguf "$@"
# Criterion's, which knows no --small.
[ $# -gt 0 ] || { section "Linear maps"; cargo bench --locked --quiet --bench linear; }
[ $# -gt 0 ] || { section "Attention"; cargo bench --locked --quiet --bench attention; }
section "The embedded model beside transformers"
benches/peers/run.sh "$@"
