#!/usr/bin/env bash
# Make a stand-in for the Dockerfile's base image, for machines that cannot pull images.
#
#   tests/docker_base.sh [IMAGE]      (default: python:3.11-slim)
#
# Does nothing when IMAGE is already there. Otherwise debootstrap makes a Debian 12 with Python 3.11
# (about 45 s), and the result is imported under that name. Where images can be pulled this script is
# not needed: `docker build` fetches the real one. Needs root, debootstrap and a running engine.
set -euo pipefail

image="${1:-python:3.11-slim}"
ca_bundle=/etc/ssl/certs/ca-certificates.crt

if docker image inspect "$image" >/dev/null 2>&1; then
    echo "docker base: $image is already there"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
    echo "error: making a stand-in for $image needs root and debootstrap: apt-get install debootstrap" >&2
    exit 1
fi

root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
echo "docker base: making a stand-in for $image with debootstrap (about a minute)"
if ! debootstrap --variant=minbase \
        --include=ca-certificates,python3,python3-venv,python-is-python3 \
        bookworm "$root" >"$root.log" 2>&1 </dev/null; then
    echo "error: debootstrap failed; the end of its log ($root.log):" >&2
    tail -n 15 "$root.log" >&2
    exit 1
fi
rm -f "$root.log"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
       "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale

# A network that inspects TLS has its own authorities: what this machine trusts, the build must
# trust as well, and pip reads its own list unless told (PIP_CERT).
if [ -f "$ca_bundle" ]; then
    cp "$ca_bundle" "$root$ca_bundle"
fi
tar -C "$root" -c . | docker import \
    --change "ENV PIP_CERT=$ca_bundle" --change 'CMD ["python3"]' - "$image" >/dev/null
echo "docker base: $image is $(( $(docker image inspect -f '{{.Size}}' "$image") / 1000000 )) MB"
