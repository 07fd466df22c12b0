#!/bin/sh
# Write random secrets into .env (or the file that is named), unless it exists:
#
#   deploy/team/secrets.sh [FILE]
#
# They belong to the volumes: a database keeps the password that it was made with.
set -eu
file="${1:-$(dirname "$0")/.env}"
[ ! -e "$file" ] || exit 0
umask 077
{
    echo COMPOSE_PROJECT_NAME=arithmetic-lm-team
    for name in POSTGRES_PASSWORD S3_ACCESS_KEY S3_SECRET_KEY FLASK_SECRET_KEY GRAFANA_PASSWORD \
        ADMIN_PASSWORD REGISTRAR_PASSWORD PROMOTER_PASSWORD SERVICE_PASSWORD; do
        printf '%s=%s\n' "$name" "$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')"
    done
} >"$file.new"
mv "$file.new" "$file"
echo "secrets: $file"
