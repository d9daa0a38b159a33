#!/usr/bin/env bash
# The pages at / and /docs in a real Chromium, against real servers.
#
#   tests/clients/page.sh target/release/dept [FOLDER]       FOLDER: pictures of the pages go there
set -euo pipefail
dept=$(realpath "${1:?usage: tests/clients/page.sh PATH_TO_DEPT [FOLDER]}")
pictures=${2:+$(mkdir -p "$2" && realpath "$2")}
root=$(cd "$(dirname "$0")/../.." && pwd)
modules=$root/target/clients/page

install() { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
command -v chromium >/dev/null || install chromium
command -v npm >/dev/null || install nodejs npm
command -v python3 >/dev/null || install python3
[ -d "$modules/node_modules/axe-core" ] ||
    npm install --silent --no-fund --no-audit --ignore-scripts --prefix "$modules" playwright-core@1.65.1 axe-core@4.14.1

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
export DEPT_HOME=$root
cp -r "$root/adapters" "$work/adapters"
(cd "$root/adapters/trec" && python3 -m zipfile -c "$work/dropped.zip" adapter_config.json adapter_model.safetensors card.toml)
"$dept" key new laptop >"$work/key"
cat >"$work/keys.toml" <<KEYS
[tenants.acme]
scopes = ["generate", "adapters:read", "adapters:write"]
keys = [$(sed -n 's/^line *//p' "$work/key")]
KEYS
serve() { # name, more flags
    local name=$1; shift
    "$dept" serve --adapters "$work/adapters" --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 --port-file "$work/$name.json" "$@" \
        >"$work/$name.log" 2>&1 &
    for _ in $(seq 600); do [ -s "$work/$name.json" ] && return; sleep 0.1; done
    cat "$work/$name.log"; exit 1
}
address() { sed 's/.*"http":"\([^"]*\)".*/http:\/\/\1/' "$work/$1.json"; }
serve open
serve keyed --api-keys "$work/keys.toml"

MODULES=$modules OPEN=$(address open) KEYED=$(address keyed) API_KEY=$(sed -n 's/^key *//p' "$work/key") \
    ARCHIVE=$work/dropped.zip FOLDER=$root/adapters/subj PICTURES=$pictures node "$root/tests/clients/page.mjs"
