#!/bin/bash
# At the first start: the store, its superuser, the scripts. Then the server that was asked for, on every address.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") --auth-local=trust \
        --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --no-instructions
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    sockets=/var/run/postgresql
    echo "unix_socket_directories = '$sockets'" >> "$PGDATA/postgresql.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    export PGHOST=$sockets
    if [ "${POSTGRES_DB:-$POSTGRES_USER}" != postgres ]; then
        psql -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE \"${POSTGRES_DB:-$POSTGRES_USER}\""
    fi
    for script in /docker-entrypoint-initdb.d/*.sh; do
        if [ -x "$script" ]; then "$script"; else . "$script"; fi
    done
    unset PGHOST
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
