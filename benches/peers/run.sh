#!/bin/sh
# dept beside its peers on this machine: makes a virtual environment, builds dept, prints a Markdown table.
#
#   benches/peers/run.sh [--uncut] [--rounds N] [--threads N] [--small] [--json FILE]
#
# --uncut, which must come first, fetches the whole flan-t5-small and compares on it; without, the embedded model.
# PEERS_VENV names another virtual environment, made before; DEPT_BIN another binary, built before.
set -eu
cd "$(dirname "$0")/../.."
# OpenBLAS's guess about the CPU is better than one left in the environment.
unset OPENBLAS_CORETYPE
venv=${PEERS_VENV:-target/peers-venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
fi
if [ -z "${DEPT_BIN:-}" ]; then
    cargo build --release --quiet
    DEPT_BIN=${CARGO_TARGET_DIR:-target}/release/dept
fi
if [ "${1:-}" = --uncut ]; then
    shift
    "$DEPT_BIN" model fetch flan-t5-small --to target/models/flan-t5-small
    set -- --uncut target/models/flan-t5-small "$@"
fi
exec "$venv/bin/python" benches/peers/compare.py --dept "$DEPT_BIN" "$@"
