-- What the projector runs in its one transaction per batch. Rows come as one array per column.

-- name: start_positions
INSERT INTO positions (projection, partition, next_offset, epoch, last_number)
SELECT $1, p, 0, -1, 0 FROM generate_series(0, $2::int - 1) AS p
ON CONFLICT DO NOTHING

-- name: place
-- Where a partition stands that was not folded through `move`.
INSERT INTO positions (projection, partition, next_offset, epoch, last_number, claims) VALUES ($1, $2, $3, $4, $5, $6)

-- name: positions
SELECT partition, next_offset, epoch, last_number FROM positions WHERE projection = $1 ORDER BY partition

-- name: move
WITH wanted AS (
    SELECT * FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[])
        AS w (partition, from_offset, from_epoch, next_offset, epoch, last_number, claims)
), held AS (
    -- Always locked in one order, so that two projectors never wait for each other.
    SELECT partition FROM positions WHERE projection = $1 AND partition = ANY($2::int[]) ORDER BY partition FOR UPDATE
)
UPDATE positions p
SET next_offset = w.next_offset, epoch = w.epoch, last_number = greatest(p.last_number, w.last_number),
    claims = CASE WHEN w.claims = '' THEN p.claims ELSE ARRAY(
        SELECT claim FROM (SELECT DISTINCT c FROM unnest(p.claims || w.claims::bigint[]) c ORDER BY c DESC LIMIT 100)
            AS newest (claim) ORDER BY claim) END
FROM wanted w JOIN held USING (partition)
WHERE p.projection = $1 AND p.partition = w.partition AND p.next_offset = w.from_offset AND p.epoch = w.from_epoch

-- name: lock_partitions
SELECT p AS partition FROM unnest($2::int[]) AS p WHERE pg_try_advisory_lock($1, p)

-- name: load_streams
SELECT key, seq FROM streams WHERE key = ANY($1::text[])

-- name: load_heads
SELECT key, workspace_id::text AS workspace_id, seq FROM streams WHERE key = ANY($1::text[])

-- name: load_threads
SELECT id, workspace_id::text AS workspace_id, title, agent_id, team_id, user_id, channel, system_prompt, context,
       metadata, created_ms, updated_ms, active_ms, pinned, archived, forked_from, forked_at, last_message_ms,
       message_count, cleared_seq, expired, deleted, idle_s, open_runs, end_user, read_seq, answered_seq
FROM threads WHERE id = ANY($1::text[])

-- name: load_runs
SELECT id, workspace_id::text AS workspace_id, thread_id, partition, parent_run_id, agent_id, agent_version, status,
       message_id, question_id, answer_number, posted_seq, created_ms, attempt, input_tokens, output_tokens,
       cache_read_tokens, cache_write_tokens, stop_reason, error_code, error_message, answer, last_text, calls,
       ended_seq, ended_ms, told
FROM runs WHERE id = ANY($1::text[])

-- name: load_keys
SELECT k.workspace_id::text AS workspace_id, k.id, key_hash, user_id, scopes, rate_limit, created_ms, revoked
FROM keys k JOIN unnest($1::uuid[], $2::text[]) AS wanted (workspace_id, id) USING (workspace_id, id)

-- name: load_workspaces
SELECT workspace_id::text AS workspace_id, name, context, structures, mcp_servers, connectors
FROM workspaces WHERE workspace_id = ANY($1::uuid[])

-- name: put_facts
INSERT INTO facts (stream, seq, partition, "offset", type, run_id, workspace_id, time_ms, headers, body)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::uuid[],
                     $8::bigint[], $9::json[], $10::bytea[])

-- name: put_streams
INSERT INTO streams (key, partition, workspace_id, seq)
SELECT * FROM unnest($1::text[], $2::int[], $3::uuid[], $4::bigint[])
ON CONFLICT (key) DO UPDATE SET seq = excluded.seq

-- name: put_threads
INSERT INTO threads (id, workspace_id, title, agent_id, team_id, user_id, channel, system_prompt, context, metadata,
                     created_ms, updated_ms, active_ms, pinned, archived, forked_from, forked_at, last_message_ms,
                     message_count, cleared_seq, expired, deleted, idle_s, open_runs, end_user, read_seq,
                     answered_seq)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::json[], $10::json[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bool[], $15::bool[],
                     $16::text[], $17::bigint[], $18::bigint[], $19::int[], $20::bigint[], $21::bool[], $22::bool[],
                     $23::int[], $24::int[], $25::text[], $26::bigint[], $27::bigint[])
ON CONFLICT (id) DO UPDATE SET
    title = excluded.title, pinned = excluded.pinned, archived = excluded.archived, metadata = excluded.metadata,
    updated_ms = excluded.updated_ms, active_ms = excluded.active_ms, last_message_ms = excluded.last_message_ms,
    message_count = excluded.message_count, cleared_seq = excluded.cleared_seq, expired = excluded.expired,
    deleted = excluded.deleted, open_runs = excluded.open_runs, read_seq = excluded.read_seq,
    answered_seq = excluded.answered_seq

-- name: clear_messages
DELETE FROM messages m USING unnest($1::text[], $2::bigint[]) AS c (thread_id, seq)
WHERE m.thread_id = c.thread_id AND m.seq < c.seq

-- name: clear_files
DELETE FROM files f USING unnest($1::text[], $2::bigint[]) AS c (thread_id, seq)
WHERE f.thread_id = c.thread_id AND f.seq < c.seq

-- name: clear_approvals
DELETE FROM approvals a USING unnest($1::text[], $2::bigint[]) AS c (thread_id, seq)
WHERE a.thread_id = c.thread_id AND a.seq < c.seq

-- name: put_files
INSERT INTO files (thread_id, seq, name, workspace_id, kind, content_type, size, sha256, run_id, created_ms)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::bigint[],
                     $8::text[], $9::text[], $10::bigint[])

-- name: put_messages
INSERT INTO messages (thread_id, seq, part, id, workspace_id, number, run_id, role, content, created_ms, tool_call_id,
                      tool_name, tool_arguments, tool_status, author, attachments, metadata, lead_context,
                      knowledge_ids, client, beside, before, told)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::text[], $5::uuid[], $6::bigint[], $7::text[],
                     $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[], $13::json[], $14::text[],
                     $15::json[], $16::json[], $17::json[], $18::json[], $19::json[], $20::bool[], $21::bigint[],
                     $22::text[], $23::int[])

-- name: put_call_statuses
UPDATE messages m SET tool_status = c.status FROM unnest($1::text[], $2::bigint[], $3::text[]) AS c (thread_id, seq, status)
WHERE m.thread_id = c.thread_id AND m.seq = c.seq AND m.part = 1

-- name: put_runs
INSERT INTO runs (id, workspace_id, thread_id, partition, parent_run_id, agent_id, agent_version, status, message_id,
                  question_id, answer_number, posted_seq, created_ms, attempt, input_tokens, output_tokens,
                  cache_read_tokens, cache_write_tokens, stop_reason, error_code, error_message, answer, last_text,
                  calls, ended_seq, ended_ms, told)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::int[], $5::text[], $6::text[], $7::int[], $8::text[],
                     $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::int[], $15::bigint[],
                     $16::bigint[], $17::bigint[], $18::bigint[], $19::text[], $20::text[], $21::text[], $22::text[],
                     $23::text[], $24::json[], $25::bigint[], $26::bigint[], $27::int[])
ON CONFLICT (id) DO UPDATE SET
    agent_id = excluded.agent_id, agent_version = excluded.agent_version, status = excluded.status,
    message_id = excluded.message_id, attempt = excluded.attempt, input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens,
    cache_write_tokens = excluded.cache_write_tokens, stop_reason = excluded.stop_reason,
    error_code = excluded.error_code, error_message = excluded.error_message, answer = excluded.answer,
    last_text = excluded.last_text, calls = excluded.calls, ended_seq = excluded.ended_seq, ended_ms = excluded.ended_ms,
    answer_number = excluded.answer_number, told = excluded.told

-- name: load_approvals
SELECT id, workspace_id::text AS workspace_id, thread_id, run_id, agent_id, seq, tool_call_id, name, arguments, question,
       input_schema, who, created_ms, due_ms, status, answered_by, comment, edited, answered_ms
FROM approvals WHERE id = ANY($1::text[])

-- name: put_approvals
INSERT INTO approvals (id, workspace_id, thread_id, run_id, agent_id, seq, tool_call_id, name, arguments, question,
                       input_schema, who, created_ms, due_ms, status, answered_by, comment, edited, answered_ms)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                     $9::json[], $10::text[], $11::json[], $12::json[], $13::bigint[], $14::bigint[], $15::text[],
                     $16::text[], $17::text[], $18::json[], $19::bigint[])
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, answered_by = excluded.answered_by, comment = excluded.comment,
    edited = excluded.edited, answered_ms = excluded.answered_ms

-- name: close_approvals
UPDATE approvals a SET status = 'closed', answered_ms = c.time_ms
FROM unnest($1::text[], $2::bigint[]) AS c (run_id, time_ms)
WHERE a.run_id = c.run_id AND a.status = 'open'

-- name: put_dues
INSERT INTO dues (stream, due_key, partition, workspace_id, run_id, due_ms)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::uuid[], $5::text[], $6::bigint[])
ON CONFLICT (stream, due_key) DO UPDATE SET due_ms = excluded.due_ms

-- name: drop_dues
DELETE FROM dues d USING unnest($1::text[], $2::text[]) AS c (stream, due_key)
WHERE d.stream = c.stream AND d.due_key = c.due_key

-- name: drop_dues_of
DELETE FROM dues d USING unnest($1::text[], $2::text[]) AS c (stream, run_id)
WHERE d.stream = c.stream AND d.run_id = c.run_id

-- name: put_notes
INSERT INTO notes (workspace_id, id, kind, title, body, agent_id, run_id, thread_id, seq, created_ms)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::bigint[], $10::bigint[])
ON CONFLICT (workspace_id, id) DO NOTHING

-- name: put_skills
INSERT INTO skills AS s (workspace_id, agent_id, slug, id, name, description, body, updated_ms)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
ON CONFLICT (workspace_id, agent_id, slug) DO UPDATE SET
    id = excluded.id, name = excluded.name, description = excluded.description, body = excluded.body,
    updated_ms = excluded.updated_ms
WHERE (excluded.updated_ms, excluded.id) > (s.updated_ms, s.id)

-- name: drop_knowledge
DELETE FROM knowledge k USING unnest($1::uuid[], $2::text[]) AS c (workspace_id, id)
WHERE k.workspace_id = c.workspace_id AND k.id = c.id

-- name: drop_passages
DELETE FROM passages p USING unnest($1::uuid[], $2::text[]) AS c (workspace_id, id)
WHERE p.workspace_id = c.workspace_id AND p.knowledge_id = c.id

-- name: put_knowledge
INSERT INTO knowledge (workspace_id, id, title, content_type, characters, created_ms)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[])

-- name: put_passages
INSERT INTO passages (workspace_id, knowledge_id, number, text, words)
SELECT workspace_id, knowledge_id, number, text,
       setweight(to_tsvector('simple', title), 'A') || setweight(to_tsvector('simple', text), 'B')
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[])
    AS p (workspace_id, knowledge_id, number, text, title)

-- name: put_workspaces
INSERT INTO workspaces (workspace_id, name, context, structures, mcp_servers, connectors)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::json[], $5::json[], $6::json[])
ON CONFLICT (workspace_id) DO UPDATE SET
    name = excluded.name, context = excluded.context, structures = excluded.structures,
    mcp_servers = excluded.mcp_servers, connectors = excluded.connectors

-- name: put_keys
INSERT INTO keys (workspace_id, id, key_hash, user_id, scopes, rate_limit, created_ms, revoked)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::json[], $6::text[], $7::bigint[], $8::bool[])
ON CONFLICT (workspace_id, id) DO UPDATE SET key_hash = excluded.key_hash, revoked = excluded.revoked

-- name: put_agents
INSERT INTO agents (workspace_id, id, version, uuid, spec, seq, deleted)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::json[], $6::bigint[], $7::bool[])
ON CONFLICT (workspace_id, id, version) DO UPDATE SET
    spec = excluded.spec, seq = excluded.seq, deleted = excluded.deleted

-- name: delete_agents
UPDATE agents a SET deleted = true FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS c (workspace_id, id, seq)
WHERE a.workspace_id = c.workspace_id AND a.id = c.id AND a.seq < c.seq

-- name: put_teams
INSERT INTO teams (workspace_id, id, version, uuid, spec)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::json[])
ON CONFLICT (workspace_id, id) DO UPDATE SET version = excluded.version, spec = excluded.spec

-- name: drop_teams
DELETE FROM teams t USING unnest($1::uuid[], $2::text[]) AS c (workspace_id, id)
WHERE t.workspace_id = c.workspace_id AND t.id = c.id

-- name: put_stop
INSERT INTO stops (partition, "offset", fault, stopped_ms, time_ms, key, headers, value)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (partition) DO UPDATE SET
    "offset" = excluded."offset", fault = excluded.fault, stopped_ms = excluded.stopped_ms, time_ms = excluded.time_ms,
    key = excluded.key, headers = excluded.headers, value = excluded.value
WHERE stops."offset" <> excluded."offset" OR stops.fault <> excluded.fault

-- name: skipped_offsets
SELECT partition, "offset" FROM skips

-- name: put_skip
INSERT INTO skips (partition, "offset", fault, reason, user_id, key_id, skipped_ms, time_ms, key, headers, value)
SELECT s.partition, s."offset", s.fault, $4, $5, $6, $7, s.time_ms, s.key, s.headers, s.value
FROM stops s JOIN positions p USING (partition)
WHERE p.projection = $1 AND s.partition = $2 AND s."offset" = $3 AND p.next_offset = $3 AND s.headers IS NOT NULL
ON CONFLICT DO NOTHING
