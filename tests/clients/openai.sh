#!/usr/bin/env bash
# The clients that people have, from their registries, against a server: `openai` for Python and Node, and `langchain-openai`.
#
#   tests/clients/openai.sh target/release/dept [SmolLM2-135M-Instruct.Q4_1.gguf]
#
# With the file, chats by a template and scored prompts are checked too.
set -euo pipefail
dept=$(realpath "${1:?the binary}")
smollm2=${2:+$(realpath "$2")}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/openai-clients/venv node=$root/target/openai-clients/node
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/openai/requirements.txt"
mkdir -p "$node"
cp "$here/openai/package.json" "$here/openai/check.mjs" "$node"
(cd "$node" && npm install --silent --no-audit --no-fund)

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
export DEPT_HOME=$root
new_key() { "$dept" key new "$1" >"$work/$1"; sed -n 's/^key *//p' "$work/$1"; }
main_key=$(new_key main) slow_key=$(new_key slow)
line() { sed -n 's/^line *//p' "$work/$1"; }
cat >"$work/keys.toml" <<TOML
[tenants.main]
keys = [$(line main)]
[tenants.slow]
requests_per_minute = 1
keys = [$(line slow)]
TOML

serve() { # a name, then arguments; leaves the address in $url
    local name=$1; shift
    "$dept" serve --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 --port-file "$work/$name.json" "$@" 2>"$work/$name.log" &
    local pid=$!
    for _ in $(seq 600); do
        [ -s "$work/$name.json" ] && break
        kill -0 "$pid" 2>/dev/null || { cat "$work/$name.log"; exit 1; }
        sleep 0.1
    done
    url=http://$(sed 's/.*"http":"\([^"]*\)".*/\1/' "$work/$name.json")/v1
}
export DEPT_MAIN_KEY=$main_key DEPT_SLOW_KEY=$slow_key
serve embedded --api-keys "$work/keys.toml"
export DEPT_URL=$url
if [ -n "$smollm2" ]; then
    mkdir "$work/none"
    serve smollm2 --model "$smollm2" --adapters "$work/none"
    export DEPT_CHAT_URL=$url
fi
"$venv/bin/python" "$here/openai/check.py"
(cd "$node" && node check.mjs)
