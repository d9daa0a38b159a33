#!/usr/bin/env bash
# Three servers, one S3 bucket (moto, from PyPI), HAProxy in front with deploy/haproxy/haproxy.cfg: an adapter uploaded to one is
# served by all, one is killed under load and comes back, and what routing by the adapter is worth.
#
#   tests/deploy/scale_out.sh target/release/dept [scale_out.py's flags]
set -euo pipefail
dept=$(realpath "${1:?the binary}"); shift
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/s3-venv
command -v haproxy >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends haproxy >/dev/null
}
if [ ! -x "$venv/bin/moto_server" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'moto[s3,server]==5.1.*' 'boto3==1.*'
fi
exec "$venv/bin/python" "$root/tests/deploy/scale_out.py" "$dept" "$venv/bin/moto_server" "$@"
