#!/bin/sh
# At PostgreSQL's first start: the role that owns Parley's tables, and its database. It may make the two roles that the
# services log in as (the migrations do), and is itself neither a superuser nor exempt from row policies.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres <<'END'
\getenv password PARLEY_OWNER_PASSWORD
CREATE ROLE parley_owner LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE parley OWNER parley_owner;
REVOKE ALL ON DATABASE parley FROM PUBLIC;
GRANT CONNECT ON DATABASE parley TO PUBLIC;
END
