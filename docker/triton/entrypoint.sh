#!/bin/sh
# Triton with the production settings: hardened.args, with the secrets filled in; more options follow.
set -eu
secrets=${SECRETS:-/run/secrets/unaligned}
settings=${SETTINGS:-/opt/unaligned/hardened.args}
for name in tls.crt tls.key ca.crt token admin-token; do
    if [ ! -s "$secrets/$name" ]; then
        echo "error: The secret $secrets/$name is missing or cannot be read." >&2
        exit 1
    fi
done
# Tokens are options of Triton, where a comma or a space would begin another.
for name in token admin-token; do
    case $(cat "$secrets/$name") in
    *[!A-Za-z0-9._~+/=-]*)
        echo "error: The secret $secrets/$name has characters other than A-Z a-z 0-9 . _ ~ + / = -." >&2
        exit 1
        ;;
    esac
done
# Of what follows, the settings come first, in their order.
count=$#
while IFS= read -r line; do
    case $line in
    '' | '#'*) continue ;;
    *@SECRETS@*) line=${line%%@SECRETS@*}$secrets${line#*@SECRETS@} ;;
    *@TOKEN@*) line=${line%%@TOKEN@*}$(cat "$secrets/token")${line#*@TOKEN@} ;;
    *@ADMIN_TOKEN@*) line=${line%%@ADMIN_TOKEN@*}$(cat "$secrets/admin-token")${line#*@ADMIN_TOKEN@} ;;
    esac
    set -- "$@" "$line"
done <"$settings"
while [ "$count" -gt 0 ]; do
    set -- "$@" "$1"
    shift
    count=$((count - 1))
done
exec tritonserver "$@"
