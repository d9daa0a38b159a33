#!/bin/sh
# dept beside transformers on this machine: makes a virtual environment, builds dept, prints a Markdown table.
#
#   benches/peers/run.sh [--rounds N] [--threads N] [--json FILE]
#
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
exec "$venv/bin/python" benches/peers/compare.py --dept "$DEPT_BIN" "$@"
