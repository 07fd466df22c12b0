#!/usr/bin/env bash
# Make .venv from requirements/dev.lock. `make setup` calls this when the lock is newer than the
# stamp, which is written last: an interrupted install is simply repeated.
#
#   PYTHON=python3.12            which Python makes the environment
#   PIP_EXTRA_INDEX_URL=…        pip's own variable; can name PyTorch's index of CPU builds
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements/dev.lock
stamp=.venv/stamp

fail() {
    echo "error: $1" >&2
    exit 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if is_recent "$candidate"; then
        python="$candidate"
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed and ${PYTHON:-python3} is not that:\
 install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python make setup"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make a virtual environment:\
 run 'apt-get install python3-venv' (as root), then this again"

# An environment whose Python has gone, or one left without pip, is of no use: make it anew.
if ! { is_recent .venv/bin/python && .venv/bin/python -m pip --version; } >/dev/null 2>&1; then
    "$python" -m venv --clear .venv
fi

SECONDS=0
echo "setup: installing $(grep -c '^[a-z]' "$lock") packages from $lock into .venv (a minute or two)"
if [ "$(uname -s)" = Linux ] && [ -z "${PIP_EXTRA_INDEX_URL:-}${PIP_INDEX_URL:-}${PIP_FIND_LINKS:-}" ]; then
    echo "setup: without an NVIDIA GPU, PIP_EXTRA_INDEX_URL naming PyTorch's index of CPU builds saves gigabytes"
fi
# Twice quiet: errors only. pip otherwise warns once a package of every index location without it.
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-input -r "$lock" \
    || fail "pip could not install $lock (its own words are above): check the network, then run this again"
date >"$stamp"
echo "setup: done in $SECONDS s"
