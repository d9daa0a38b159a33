#!/usr/bin/env bash
# The API's description: spectral finds nothing to say about it, and running servers hold to it, whatever schemathesis sends them.
#
#   tests/clients/openapi.sh target/release/dept [EXAMPLES]      EXAMPLES: how many of each operation, 5 unless said
set -euo pipefail
dept=$(realpath "${1:?usage: tests/clients/openapi.sh PATH_TO_DEPT [EXAMPLES]}")
examples=${2:-5}
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/tests/clients tools=$root/target/clients/openapi

install() { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
command -v npm >/dev/null || install nodejs npm
python3 -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
[ -x "$tools/venv/bin/schemathesis" ] || {
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet schemathesis==4.32.5
} &
[ -x "$tools/node_modules/.bin/spectral" ] ||
    npm install --silent --no-fund --no-audit --ignore-scripts --prefix "$tools" @stoplight/spectral-cli@6.16.3
wait $!

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
export DEPT_HOME=$root
"$dept" key new robot >"$work/key"
cat >"$work/keys.toml" <<KEYS
[tenants.robots]
scopes = ["generate", "adapters:read", "adapters:write", "admin"]
keys = [$(sed -n 's/^line *//p' "$work/key")]
KEYS
serve() { # name, more flags
    local name=$1; shift
    mkdir -p "$work/$name"
    cp -r "$root"/adapters/*/ "$work/$name"
    "$dept" serve --adapters "$work/$name" --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 --port-file "$work/$name.json" "$@" \
        >"$work/$name.log" 2>&1 &
    for _ in $(seq 600); do [ -s "$work/$name.json" ] && return; sleep 0.1; done
    cat "$work/$name.log"; exit 1
}
address() { sed 's/.*"http":"\([^"]*\)".*/http:\/\/\1/' "$work/$1.json"; }
hold() { # server, more flags
    local server=$1; shift
    (cd "$work" && "$tools/venv/bin/schemathesis" --no-color --config-file "$here/schemathesis.toml" run "$(address "$server")/openapi.json" \
        --checks all --max-examples "$examples" --seed 1 --continue-on-failure --request-timeout 30 "$@") ||
        { echo "BAD $server"; tail -5 "$work/$server.log"; exit 1; }
}

serve open
curl -sSf "$(address open)/openapi.json" >"$work/openapi.json"
"$tools/node_modules/.bin/spectral" lint --fail-severity warn --ruleset "$here/spectral.yaml" "$work/openapi.json"
hold open
serve keyed --api-keys "$work/keys.toml"
hold keyed --phases examples,coverage -H "Authorization: Bearer $(sed -n 's/^key *//p' "$work/key")"
if grep -i 'panicked' "$work"/*.log; then echo "BAD a server panicked"; exit 1; fi
echo "ok  the description and the servers agree"
