#!/usr/bin/env bash
# Install requirements/dev.lock into .venv with uv; do nothing when that is done already.
#
#   make setup                              (or PYTHON=python3.12 make setup)
#
# uv comes from PATH, else pip brings it. Its own variables (UV_INDEX, UV_FIND_LINKS, UV_TORCH_BACKEND, …)
# count, and so do pip's settings. Without any, Linux without an NVIDIA GPU gets PyTorch's CPU build.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="${PATH//"$PWD/.venv/bin:"/}"  # the Python and the uv that make .venv are not its own

lock=requirements/dev.lock
stamp=.venv/stamp  # the environment's path and the lock's checksum, written last

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Console scripts hold the environment's path: one that was moved or copied is made anew.
location="$(cd .venv 2>/dev/null && pwd -P || echo "$PWD/.venv")"
checksum="$(cksum <"$lock")"
stamped_location='' stamped_checksum=''
if is_recent .venv/bin/python && [ -f "$stamp" ]; then
    { read -r stamped_location; read -r stamped_checksum; } <"$stamp" || true
fi
if [ "$stamped_location" = "$location" ] && [ "$stamped_checksum" = "$checksum" ]; then
    exit 0
fi
# Another checkout's environment (a worktree may link to it) is never changed from here.
[ ! -L .venv ] || fail ".venv is a link, and $location does not have the packages of $lock" \
    "run make setup in $(dirname "$location"), or remove the link"

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if is_recent "$candidate"; then
        python="$candidate"
        break
    fi
done
[ -n "$python" ] || fail "${PYTHON:-python3} is not Python 3.11 or newer" \
    "install one, or name it: PYTHON=/path/to/python3.11 make setup"

# The value of one of pip's options: its environment variable, else its configuration files.
pip_option() {
    local variable
    variable="PIP_$(echo "$1" | tr 'a-z-' 'A-Z_')"
    if [ -n "${!variable:-}" ]; then
        echo "${!variable}"
    else
        echo "$pip_config" | sed -n "s/^[a-z]*\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g; s/^ *//; q'
    fi
}

# uv reads only its own settings: pass pip's on, with pip's rule that the best version of all indexes wins.
export_settings() {
    local pip_config cert find_links index extra
    pip_config="$("$python" -m pip config list 2>/dev/null || true)"
    cert="$(pip_option cert)" find_links="$(pip_option find-links)"
    index="$(pip_option index-url)" extra="$(pip_option extra-index-url)"
    if [ -n "$cert" ]; then export SSL_CERT_FILE="$cert"; fi
    if env | grep -qE '^UV_(FIND_LINKS|INDEX|INDEX_URL|DEFAULT_INDEX|EXTRA_INDEX_URL|TORCH_BACKEND|CONFIG_FILE)='; then
        return
    fi
    if [ -n "$find_links" ]; then export UV_FIND_LINKS="${find_links// /,}"; fi
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
    if [ -n "$extra" ]; then export UV_INDEX="$extra" UV_INDEX_STRATEGY=unsafe-best-match; fi
    if [ -z "$find_links$index$extra" ] && [ "$(uname -s)" = Linux ] \
            && ! [ -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null; then
        export UV_TORCH_BACKEND=cpu
    fi
}

SECONDS=0
echo "setup: installing $(grep -c '^[a-z]' "$lock") packages into .venv (a minute or two the first time)"
export_settings
rm -f "$stamp"
uv="$(command -v uv || true)"
if [ -n "$uv" ] && "$uv" pip install --help | grep -q -e --torch-backend; then
    [ "$stamped_location" = "$location" ] || "$uv" venv --quiet --clear --python "$python" .venv
else
    [ "$stamped_location" = "$location" ] || "$python" -m venv --clear .venv \
        || fail "$python could not make a virtual environment (its message is above)" \
            "as root: apt-get install python3-venv, or install uv; then run this again"
    .venv/bin/python -m pip install -qq --no-input --no-compile --disable-pip-version-check \
        "$(grep -o '^uv==[0-9.]*' "$lock")" \
        || fail "pip could not install uv (its message is above)" \
            "check the network and pip's index settings, then run this again"
    uv=.venv/bin/uv
fi
"$uv" pip install --quiet --exact --python .venv/bin/python -r "$lock" \
    || fail "uv could not install $lock (its message is above)" \
        "check the network; another index: PIP_INDEX_URL=… make setup; another PyTorch: UV_TORCH_BACKEND=…"
printf '%s\n' "$location" "$checksum" >"$stamp"
echo "setup: done in $SECONDS s"
