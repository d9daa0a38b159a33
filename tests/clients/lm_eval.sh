#!/usr/bin/env bash
# lm-evaluation-harness' `local-completions` against a server with SmolLM2: a task of its own, and the log-likelihood of a text
# beside what transformers computes (tests/golden/real). Some minutes; not in CI.
#
#   tests/clients/lm_eval.sh target/release/dept SmolLM2-135M-Instruct.Q4_1.gguf
set -euo pipefail
dept=$(realpath "${1:?the binary}") gguf=$(realpath "${2:?the GGUF file}")
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${LM_EVAL_VENV:-$root/target/lm-eval-venv}
if [ ! -x "$venv/bin/lm_eval" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/lm_eval/requirements.txt"
fi
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/none"
"$dept" serve --model "$gguf" --model-name smollm2 --adapters "$work/none" --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 \
    --port-file "$work/ports" 2>"$work/log" &
for _ in $(seq 600); do [ -s "$work/ports" ] && break; sleep 0.1; done
DEPT_URL=http://$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$work/ports")/v1/completions
export DEPT_URL HF_HUB_OFFLINE=1 HF_DATASETS_CACHE=$work/datasets TOKENIZERS_PARALLELISM=false
"$venv/bin/python" "$here/lm_eval/tokenizer.py" "$gguf" "$work/tokenizer"
cp "$here/lm_eval/capitals.yaml" "$here/lm_eval/capitals.jsonl" "$work"
# The task names its data relative to where it is run.
cd "$work"
"$venv/bin/lm_eval" --model local-completions --tasks capitals --include_path "$work" --batch_size 4 \
    --model_args "model=smollm2,base_url=$DEPT_URL,tokenizer=$work/tokenizer,max_length=2048" 2>&1 | grep -E '^\||rror'
"$venv/bin/python" "$here/lm_eval/likelihood.py" "$work/tokenizer" "$root/tests/golden/real"
