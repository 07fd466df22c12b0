#!/usr/bin/env bash
# Check what is in deploy/, without a cluster and without an image:
#
#   make check-deploy
#
# A missing tool is an error that names its Debian package; nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

needs() { # COMMAND PACKAGE
    command -v "$1" >/dev/null && return
    printf 'error: %s is not installed\nhint: apt-get install %s\n' "$1" "$2" >&2
    exit 2
}

check() { # TITLE COMMAND...
    if "${@:2}" >"$scratch/log" 2>&1; then
        echo "ok: $1"
    else
        cat "$scratch/log" >&2
        echo "error: $1" >&2
        exit 1
    fi
}

check_compose() {
    deploy/team/secrets.sh "$scratch/env" >/dev/null
    check compose.yaml docker-compose -f compose.yaml config
    check deploy/candidate.yaml docker-compose -f compose.yaml -f deploy/candidate.yaml config
    local team=(docker-compose --env-file "$scratch/env" -f deploy/team/compose.yaml)
    check deploy/team/compose.yaml "${team[@]}" config
    TRUSTED_KEY=/key.pem check deploy/team/signed.yaml "${team[@]}" -f deploy/team/signed.yaml config
}

# The names of containers do not resolve here, so loopback replaces them.
check_nginx() {
    local folder="$scratch/nginx"
    mkdir -p "$folder"
    cp deploy/nginx/*.conf "$folder"
    cp "$1" "$folder/site.conf"
    sed -i -e "s#/tmp/#$folder/#; s#/etc/nginx/arithmetic-lm#$folder#" \
        -e 's#server \(service\|candidate\):#server 127.0.0.1:#' "$folder"/*.conf
    check "$1" nginx -t -p "$folder" -c "$folder/nginx.conf"
}

needs docker-compose docker-compose
needs nginx nginx
needs promtool prometheus
check_compose
for site in deploy/nginx/{mirror,split}.conf deploy/team/site.conf; do check_nginx "$site"; done
check "deploy/team/prometheus.yml and alerts.yml" promtool check config deploy/team/prometheus.yml
