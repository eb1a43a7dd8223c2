#!/bin/sh
# Run Triton with the production settings: hardened.args with the secrets filled in, then the arguments.
set -eu
secrets=${SECRETS:-/run/secrets/unaligned}
settings=${SETTINGS:-/opt/unaligned/hardened.args}
for name in tls.crt tls.key ca.crt token admin-token; do
    if [ ! -s "$secrets/$name" ]; then
        echo "error: cannot read the secret \`$secrets/$name\`: missing, empty or no permission" >&2
        exit 1
    fi
done
# Tokens are passed as options, where a comma or a space would start another option.
for name in token admin-token; do
    case $(cat "$secrets/$name") in
    *[!A-Za-z0-9._~+/=-]*)
        echo "error: invalid character in the secret \`$secrets/$name\`: use only A-Z a-z 0-9 . _ ~ + / = -" >&2
        exit 1
        ;;
    esac
done
# Put the settings before the arguments, in order.
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
