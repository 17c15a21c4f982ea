-- What a rebuild asks of PostgreSQL: of schemas and their tables, of the two that are compared, and of who still reads.

-- name: secured
SELECT c.relname AS name FROM pg_class c
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relrowsecurity ORDER BY 1

-- name: indexes
SELECT i.relname AS name, pg_get_indexdef(i.oid) AS made_by
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE t.relnamespace = to_regnamespace($1) AND t.relname = ANY($2::text[])
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid)
ORDER BY 1

-- name: keys
SELECT t.relname AS "table", k.conname AS name, pg_get_constraintdef(k.oid) AS made_by
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
WHERE t.relnamespace = to_regnamespace($1) AND t.relname = ANY($2::text[]) AND k.contype = 'p'
ORDER BY 1

-- name: tables
-- Those that facts alone say: rows of a workspace, with their columns and those of the primary key.
SELECT c.relname AS name,
       array_agg(a.attname ORDER BY a.attname) FILTER (WHERE a.attnum > 0) AS columns,
       array_agg(a.attname ORDER BY array_position(k.conkey, a.attnum)) FILTER (WHERE a.attnum = ANY(k.conkey)) AS key
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'
GROUP BY c.relname
HAVING bool_or(a.attname = 'workspace_id')
ORDER BY 1

-- name: readers
-- Whose snapshot may be older than the transaction $1: sessions of the two services that do not wait for a lock.
SELECT count(*) FROM pg_stat_activity s
WHERE s.datname = current_database() AND s.usename = ANY($2::text[]) AND s.backend_xmin IS NOT NULL
  AND age(s.backend_xmin) >= age((($1::text)::xid8)::xid)
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = s.pid AND NOT l.granted)

-- name: policies
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
       (SELECT array_agg(p.polname::text || p.polcmd::text || p.polroles::regrole[]::text ORDER BY p.polname)
        FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' ORDER BY 1
