#!/bin/sh
# Writes .env beside docker-compose.yml: a new workspace, its two keys, every password, from /dev/urandom.
# An .env that is there is left alone: what stands in it is what the data was made with.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo ".env is there already; it was left as it is"
    exit 0
fi
umask 077

hex() { od -An -v -tx1 -N"$1" /dev/urandom | tr -d ' \n'; }
letters() { head -c "$1" /dev/urandom | base64 | tr -d '=\n'; }
# 32 bytes, as a key carries them.
secret() { letters 32 | tr '+/' '-_'; }

# A random UUID, and the same without its dashes.
uuid=$(hex 16 | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)/\1-\2-4\3-a\4-/')
id=$(echo "$uuid" | tr -d -)
making=".env.$$"
trap 'rm -f "$making"' EXIT
sed \
    -e "s/^PARLEY_WORKSPACE_ID=\$/&$uuid/" \
    -e "s/^PARLEY_API_KEY=\$/&pk_${id}_$(secret)/" \
    -e "s/^PARLEY_ADMIN_KEY=\$/&pk_${id}_$(secret)/" \
    -e "s/^PARLEY_INTERNAL_TOKEN=\$/&$(hex 32)/" \
    -e "s/^PARLEY_OWNER_PASSWORD=\$/&$(hex 24)/" \
    -e "s/^PARLEY_PROJECTOR_PASSWORD=\$/&$(hex 24)/" \
    -e "s/^PARLEY_READER_PASSWORD=\$/&$(hex 24)/" \
    -e "s/^POSTGRES_PASSWORD=\$/&$(hex 24)/" \
    -e "s/^KAFKA_CLUSTER_ID=\$/&$(letters 16 | tr '+/' 'ab')/" \
    .env.example > "$making"
mv "$making" .env
echo ".env is made, with new keys and passwords; only you can read it"
