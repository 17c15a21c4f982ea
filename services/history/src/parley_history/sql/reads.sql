-- What readers ask. Queries with a workspace name it, though the reader role's row policy holds without that too.

-- name: positions
SELECT partition, next_offset, epoch, last_number FROM positions WHERE projection = $1 ORDER BY partition

-- name: ready
SELECT count(*) FROM positions WHERE projection = $1

-- name: reached
SELECT (SELECT coalesce(json_object_agg(partition, next_offset), '{}') FROM positions
        WHERE projection = $1 AND partition = ANY($2::int[])) AS partitions,
       (SELECT coalesce(json_object_agg(key, seq), '{}') FROM streams WHERE key = ANY($3::text[])) AS streams

-- name: partition
SELECT partition, next_offset, epoch, last_number, claims FROM positions WHERE projection = $1 AND partition = $2

-- name: open_threads
-- A parked run has something to do again when a child of it has ended, or its thread is cancelled. Those facts are not its
-- own, and its owner may die before what follows from them: so the newest of these must be that it was parked.
SELECT r.thread_id,
       bool_and(r.status = 'waiting' AND coalesce(r.posted_seq > t.cleared_seq AND NOT t.deleted AND NOT t.expired, true)
                AND (SELECT f.type FROM facts f
                     WHERE f.stream = r.thread_id AND f.type IN ('run.waiting', 'thread.cancelling', 'run.completed',
                                                                 'run.failed', 'run.cancelled')
                     ORDER BY f.seq DESC LIMIT 1) = 'run.waiting')
           AS waiting
FROM runs r LEFT JOIN threads t ON t.id = r.thread_id
WHERE r.partition = $1 AND r.ended_seq IS NULL
GROUP BY r.thread_id ORDER BY r.thread_id

-- name: due
SELECT d.* FROM unnest($1::int[]) AS p (number) CROSS JOIN LATERAL (
    SELECT stream, workspace_id::text AS workspace_id, due_key, due_ms FROM dues
    WHERE partition = p.number AND due_ms <= $2 ORDER BY due_ms, stream, due_key LIMIT 500
) AS d

-- name: stream_head
SELECT s.seq, p.partition, p.next_offset, p.epoch
FROM positions p LEFT JOIN streams s ON s.key = $1 AND ($4::uuid IS NULL OR s.workspace_id = $4)
WHERE p.projection = $2 AND p.partition = $3

-- name: facts_asc
SELECT "offset", time_ms, headers, body FROM (
    SELECT "offset", time_ms, headers, body, seq, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
    FROM (SELECT * FROM facts WHERE stream = $1 AND seq > $2 AND ($5::uuid IS NULL OR workspace_id = $5)
          ORDER BY seq LIMIT $3) AS page
) AS sized WHERE before < $4 ORDER BY seq

-- name: facts_desc
SELECT "offset", time_ms, headers, body FROM (
    SELECT "offset", time_ms, headers, body, seq,
           sum(octet_length(body)) OVER (ORDER BY seq DESC) - octet_length(body) AS before
    FROM (SELECT * FROM facts WHERE stream = $1 AND seq < $2 AND ($5::uuid IS NULL OR workspace_id = $5)
          ORDER BY seq DESC LIMIT $3) AS page
) AS sized WHERE before < $4 ORDER BY seq DESC

-- name: places_of_workspace
-- Facts of threads of a workspace in a partition, by their places; seen: by a user (null: by an admin).
SELECT f."offset", f.stream, f.seq, octet_length(f.body) AS size, t.deleted,
       ($6::text IS NULL OR t.user_id IS NULL OR t.user_id = $6) AS seen
FROM (SELECT * FROM facts WHERE workspace_id = $1 AND partition = $2 AND "offset" >= $3 AND "offset" < $4
      ORDER BY "offset" LIMIT $5) AS f
LEFT JOIN threads t ON t.id = f.stream AND t.workspace_id = $1
ORDER BY f."offset"

-- name: places_of_threads
-- The same of some threads, each by itself and from a seq on: what lies between them on the partition, and what they had
-- before, is not looked at. (Plus 0: for this no index but that of the thread is of use.)
SELECT f."offset", t.id AS stream, f.seq, octet_length(f.body) AS size, t.deleted,
       ($6::text IS NULL OR t.user_id IS NULL OR t.user_id = $6) AS seen
FROM unnest($7::text[], $8::bigint[]) AS asked (id, after) JOIN threads t ON t.id = asked.id AND t.workspace_id = $1
CROSS JOIN LATERAL (
    SELECT * FROM facts
    WHERE stream = t.id AND seq > asked.after AND partition + 0 = $2 AND "offset" + 0 >= $3 AND "offset" + 0 < $4
    ORDER BY seq LIMIT $5
) AS f
ORDER BY f."offset" LIMIT $5

-- name: facts_at
SELECT "offset", time_ms, headers, body FROM facts
WHERE workspace_id = $1 AND partition = $2 AND "offset" = ANY ($3) ORDER BY "offset"

-- name: deletions
SELECT stream, max(seq) AS seq FROM facts
WHERE stream = ANY ($2) AND workspace_id = $1 AND type = 'thread.deleted' GROUP BY stream

-- name: owners
-- Whose threads are, deleted ones too, and the newest fact that the view has of each below an offset.
SELECT t.id, t.user_id, t.agent_id, t.team_id,
       coalesce((SELECT seq FROM facts WHERE stream = t.id AND "offset" + 0 < asked.below ORDER BY seq DESC LIMIT 1), 0) AS seq
FROM unnest($2::text[], $3::bigint[]) AS asked (id, below) JOIN threads t ON t.id = asked.id AND t.workspace_id = $1

-- name: seq_at
-- The newest fact of a stream whose own time is not after $3 (the time of its record, where it names none).
SELECT max(seq) FROM facts
WHERE stream = $1 AND workspace_id = $2
  AND coalesce((headers ->> 'ce_time')::timestamptz, timestamptz 'epoch' + time_ms * interval '1 millisecond')
      <= timestamptz 'epoch' + $3::bigint * interval '1 millisecond'

-- name: facts_until
SELECT count(*) AS count, coalesce(sum(size), 0)::bigint AS size FROM (
    SELECT octet_length(body) AS size FROM facts WHERE stream = $1 AND workspace_id = $2 AND seq <= $3 LIMIT $4
) AS page

-- name: workspace
SELECT w.workspace_id::text AS id, w.name, w.context, w.structures, w.mcp_servers, w.connectors,
       (SELECT count(*) FROM knowledge k WHERE k.workspace_id = $1) AS documents, coalesce(s.seq, 0) AS seq
FROM workspaces w LEFT JOIN streams s ON s.key = 'ws:' || w.workspace_id WHERE w.workspace_id = $1

-- name: keys
SELECT k.id, k.key_hash, k.workspace_id::text AS workspace_id, coalesce(w.name, '') AS workspace, k.user_id, k.scopes,
       k.rate_limit, k.created_ms, k.revoked
FROM keys k LEFT JOIN workspaces w USING (workspace_id)
WHERE k.workspace_id = $1 AND ($2::text IS NULL OR k.key_hash = $2)
ORDER BY k.created_ms, k.id

-- name: agents
SELECT id, uuid, version, spec, deleted FROM (
    SELECT DISTINCT ON (id) id, uuid, version, spec, deleted FROM agents WHERE workspace_id = $1 ORDER BY id, version DESC
) AS newest WHERE NOT deleted ORDER BY id

-- name: agent
SELECT id, uuid, version, spec, deleted FROM agents
WHERE workspace_id = $1 AND (id = $2 OR uuid = $2) AND ($3::int IS NULL OR version = $3)
ORDER BY version DESC LIMIT 1

-- name: teams
SELECT id, uuid, version, spec FROM teams WHERE workspace_id = $1 ORDER BY id

-- name: agent_versions
SELECT a.id, a.uuid, a.version, a.spec, coalesce(f.time_ms, 0) AS created_ms
FROM agents a LEFT JOIN facts f ON f.stream = 'ws:' || a.workspace_id AND f.seq = a.seq
WHERE a.workspace_id = $1 AND a.id = $2 AND ($3::int IS NULL OR a.version = $3) AND ($4::bigint IS NULL OR a.version < $4)
ORDER BY a.version DESC LIMIT $5

-- name: agent_versions_total
SELECT count(*) FROM agents WHERE workspace_id = $1 AND id = $2 AND ($3::int IS NULL OR version = $3)

-- name: team_facts
SELECT time_ms, body FROM facts WHERE stream = 'ws:' || $1::uuid AND workspace_id = $1 AND type = 'team.changed'
ORDER BY seq DESC LIMIT 10000

-- name: thread
SELECT t.*, coalesce(s.seq, 0) AS seq,
       t.expired OR EXISTS (SELECT FROM dues d WHERE d.stream = t.id AND d.due_key = 'session' AND d.due_ms <= $3)
           AS expired_now
FROM threads t LEFT JOIN streams s ON s.key = t.id
WHERE t.workspace_id = $1 AND t.id = $2 AND NOT t.deleted

-- name: threads
SELECT t.*, coalesce(s.seq, 0) AS seq,
       t.expired OR EXISTS (SELECT FROM dues d WHERE d.stream = t.id AND d.due_key = 'session' AND d.due_ms <= $11)
           AS expired_now
FROM threads t LEFT JOIN streams s ON s.key = t.id
WHERE t.workspace_id = $1 AND NOT t.deleted AND t.archived = $2
  AND ($3::text IS NULL OR t.user_id = $3) AND ($4::text IS NULL OR t.agent_id = $4)
  AND ($5::text IS NULL OR t.team_id = $5)
  AND ($6::bool IS NULL OR t.pinned = $6) AND ($7::text IS NULL OR t.channel = $7)
  AND ($8::bigint IS NULL OR (t.active_ms, t.id) < ($8, $9::text))
ORDER BY t.active_ms DESC, t.id DESC LIMIT $10

-- name: threads_total
SELECT count(*) FROM threads t
WHERE t.workspace_id = $1 AND NOT t.deleted AND t.archived = $2
  AND ($3::text IS NULL OR t.user_id = $3) AND ($4::text IS NULL OR t.agent_id = $4)
  AND ($5::text IS NULL OR t.team_id = $5)
  AND ($6::bool IS NULL OR t.pinned = $6) AND ($7::text IS NULL OR t.channel = $7)

-- name: messages_asc
SELECT * FROM messages WHERE workspace_id = $1 AND thread_id = $2 AND ($3::text[] IS NULL OR role = ANY($3))
  AND ($4::bigint IS NULL OR (seq, part) > ($4, $5::int))
ORDER BY seq, part LIMIT $6

-- name: messages_desc
SELECT * FROM messages WHERE workspace_id = $1 AND thread_id = $2 AND ($3::text[] IS NULL OR role = ANY($3))
  AND ($4::bigint IS NULL OR (seq, part) < ($4, $5::int))
ORDER BY seq DESC, part DESC LIMIT $6

-- name: messages_total
SELECT count(*) FROM messages
WHERE workspace_id = $1 AND thread_id = $2 AND ($3::text[] IS NULL OR role = ANY($3))

-- name: numbered_below
-- Messages by their numbers: of one thread, or of all that a user has with an agent. Results of tools that the server ran,
-- and calls of those, only where they are asked for ($5).
SELECT m.* FROM threads t CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE thread_id = t.id AND workspace_id = $1 AND beside IS NULL AND (role <> 'tool' OR client OR $5)
      AND ($6::bigint IS NULL OR number < $6)
    ORDER BY number DESC LIMIT $7
) m
WHERE t.workspace_id = $1 AND NOT t.deleted
  AND CASE WHEN $2::text IS NULL THEN t.user_id = $3 AND t.agent_id = $4 AND t.end_user IS NULL ELSE t.id = $2 END
ORDER BY m.number DESC LIMIT $7

-- name: numbered_above
SELECT m.* FROM threads t CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE thread_id = t.id AND workspace_id = $1 AND beside IS NULL AND (role <> 'tool' OR client OR $5)
      AND ($6::bigint IS NULL OR number > $6)
    ORDER BY number LIMIT $7
) m
WHERE t.workspace_id = $1 AND NOT t.deleted
  AND CASE WHEN $2::text IS NULL THEN t.user_id = $3 AND t.agent_id = $4 AND t.end_user IS NULL ELSE t.id = $2 END
ORDER BY m.number LIMIT $7

-- name: numbered_total
SELECT count(*) FROM threads t JOIN messages m ON m.thread_id = t.id
WHERE t.workspace_id = $1 AND m.workspace_id = $1 AND NOT t.deleted
  AND CASE WHEN $2::text IS NULL THEN t.user_id = $3 AND t.agent_id = $4 AND t.end_user IS NULL ELSE t.id = $2 END
  AND m.beside IS NULL AND (m.role <> 'tool' OR m.client OR $5)

-- name: calls_beside
SELECT m.* FROM messages m JOIN unnest($2::text[], $3::bigint[]) AS c (thread_id, seq)
  ON m.thread_id = c.thread_id AND m.beside = c.seq
WHERE m.workspace_id = $1 ORDER BY m.seq

-- name: client_call
-- A call of a tool that the client runs, by the id that the model gave it: an open one first, then the newest.
SELECT m.* FROM threads t JOIN messages m ON m.thread_id = t.id
WHERE t.workspace_id = $1 AND m.workspace_id = $1 AND NOT t.deleted AND t.user_id = $2 AND t.agent_id = $3
  AND t.end_user IS NULL AND m.client AND m.tool_call_id = $4 AND m.tool_status IS NOT NULL
ORDER BY m.tool_status IN ('running', 'waiting') DESC, m.number DESC LIMIT 1

-- name: message
SELECT m.* FROM messages m JOIN threads t ON t.id = m.thread_id
WHERE m.workspace_id = $1 AND m.thread_id = $2 AND m.id = $3 AND NOT t.deleted

-- name: said
-- Questions and answers by their numbers: of one thread, or of those that a user has with an agent in these channels. (A
-- fork has the channel of its source, and is none of the conversations that are everybody's one.)
SELECT m.* FROM threads t CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE thread_id = t.id AND workspace_id = $1 AND role IN ('user', 'assistant')
      AND ($6::bigint IS NULL OR number < $6)
    ORDER BY number DESC LIMIT $7
) m
WHERE t.workspace_id = $1 AND NOT t.deleted
  AND CASE WHEN $2::text IS NULL
      THEN t.user_id = $3 AND t.agent_id = $4 AND t.channel = ANY($5::text[]) AND t.end_user IS NULL AND t.forked_from IS NULL
      ELSE t.id = $2 END
ORDER BY m.number DESC LIMIT $7

-- name: inbox
SELECT m.* FROM threads t CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE thread_id = t.id AND workspace_id = $1 AND role = 'assistant' AND seq > t.read_seq
    ORDER BY seq DESC LIMIT $4
) m
WHERE t.workspace_id = $1 AND t.user_id = $2 AND t.agent_id = $3 AND t.unread AND NOT t.deleted
  AND t.end_user IS NULL
ORDER BY m.created_ms DESC, m.thread_id DESC, m.seq DESC LIMIT $4

-- name: inbox_total
SELECT coalesce(sum(m.answers), 0)::bigint FROM threads t CROSS JOIN LATERAL (
    SELECT count(*) AS answers FROM messages
    WHERE thread_id = t.id AND workspace_id = $1 AND role = 'assistant' AND seq > t.read_seq
) m
WHERE t.workspace_id = $1 AND t.user_id = $2 AND t.agent_id = $3 AND t.unread AND NOT t.deleted
  AND t.end_user IS NULL

-- name: unread
SELECT id AS thread_id, answered_seq FROM threads
WHERE workspace_id = $1 AND user_id = $2 AND agent_id = $3 AND unread AND NOT deleted
  AND end_user IS NULL AND id > $4
ORDER BY id LIMIT $5

-- name: deleted
SELECT count(*) FROM threads
WHERE workspace_id = $1 AND user_id = $2 AND agent_id IS NOT DISTINCT FROM $3 AND team_id IS NOT DISTINCT FROM $4
  AND channel = $5 AND deleted AND forked_from IS NULL

-- name: files
SELECT kind, name, content_type, size, sha256, seq, run_id, created_ms FROM (
    SELECT DISTINCT ON (kind, name) kind, name, content_type, size, sha256, seq, run_id, created_ms FROM files
    WHERE workspace_id = $1 AND thread_id = $2 AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR name = $4)
      AND ($5::text IS NULL OR sha256 = $5)
    ORDER BY kind, name, seq DESC
) AS newest
WHERE $6::bigint IS NULL OR (seq, name) < ($6, $7::text)
ORDER BY seq DESC, name DESC LIMIT $8

-- name: files_total
SELECT count(DISTINCT (kind, name)) FROM files
WHERE workspace_id = $1 AND thread_id = $2 AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR name = $4)
  AND ($5::text IS NULL OR sha256 = $5)

-- name: run
SELECT r.*, coalesce(s.seq, 0) AS seq FROM runs r LEFT JOIN streams s ON s.key = r.thread_id
WHERE r.workspace_id = $1 AND r.id = $2

-- name: open_runs
-- Top-level runs that have not ended, oldest first. Those of a user are in their own threads; in a shared one only where
-- that thread is named.
SELECT r.id, r.thread_id, r.agent_id, t.user_id, r.status, r.created_ms
FROM runs r JOIN threads t ON t.id = r.thread_id
WHERE r.workspace_id = $1 AND r.ended_seq IS NULL AND r.parent_run_id IS NULL AND NOT t.deleted
  AND ($2::text IS NULL OR r.agent_id = $2)
  AND ($3::text IS NULL OR t.user_id = $3 OR (t.user_id IS NULL AND $4::text IS NOT NULL))
  AND ($4::text IS NULL OR r.thread_id = $4) AND ($5::bigint IS NULL OR r.created_ms <= $5)
  AND ($6::bigint IS NULL OR (r.created_ms, r.id) > ($6, $7::text))
ORDER BY r.created_ms, r.id LIMIT $8

-- name: approval
SELECT a.*, t.user_id FROM approvals a JOIN threads t ON t.id = a.thread_id
WHERE a.workspace_id = $1 AND a.id = $2 AND NOT t.deleted

-- name: approvals
-- $5: those in threads of this user, or shared; $6: those that this user may answer. Both: either. Neither: all.
SELECT a.*, t.user_id FROM approvals a JOIN threads t ON t.id = a.thread_id
WHERE a.workspace_id = $1 AND NOT t.deleted AND ($2::text IS NULL OR a.status = $2)
  AND ($3::text IS NULL OR a.thread_id = $3) AND ($4::text IS NULL OR a.agent_id = $4)
  AND (($5::text IS NULL AND $6::text IS NULL)
       OR ($5::text IS NOT NULL AND (t.user_id IS NULL OR t.user_id = $5))
       OR ($6::text IS NOT NULL AND (json_array_length(a.who) = 0
                                     OR EXISTS (SELECT FROM json_array_elements_text(a.who) AS w WHERE w = $6))))
  AND ($7::bigint IS NULL OR (a.created_ms, a.id) < ($7, $8::text))
ORDER BY a.created_ms DESC, a.id DESC LIMIT $9

-- name: approvals_total
SELECT count(*) FROM approvals a JOIN threads t ON t.id = a.thread_id
WHERE a.workspace_id = $1 AND NOT t.deleted AND ($2::text IS NULL OR a.status = $2)
  AND ($3::text IS NULL OR a.thread_id = $3) AND ($4::text IS NULL OR a.agent_id = $4)
  AND (($5::text IS NULL AND $6::text IS NULL)
       OR ($5::text IS NOT NULL AND (t.user_id IS NULL OR t.user_id = $5))
       OR ($6::text IS NOT NULL AND (json_array_length(a.who) = 0
                                     OR EXISTS (SELECT FROM json_array_elements_text(a.who) AS w WHERE w = $6))))

-- name: notes
SELECT id, kind, title, body, agent_id, run_id, thread_id, created_ms FROM notes
WHERE workspace_id = $1 AND ($2::text IS NULL OR kind = $2) ORDER BY created_ms DESC, id DESC LIMIT $3

-- name: skills
-- The query's words (cut, folded and quoted by PostgreSQL itself, so that no character of it can be an operator), from
-- three letters on as beginnings. A skill is found by any word, or by the whole query as a part of its text, which
-- serves scripts that put no spaces between words; those that have every word come first, then by weight and age.
WITH asked AS (
    SELECT string_agg(word, ' & ')::tsquery AS every_word, string_agg(word, ' | ')::tsquery AS any_word
    FROM (
        SELECT '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
            || CASE WHEN length(lexeme) > 2 THEN ':*' ELSE '' END AS word
        FROM unnest(to_tsvector('simple', $3::text))
    ) AS given
)
SELECT slug, name, description, agent_id, updated_ms FROM skills, asked
WHERE workspace_id = $1 AND ($2::text IS NULL OR agent_id = $2)
  AND ($3::text IS NULL OR words @@ any_word
       OR strpos(lower(slug || ' ' || name || ' ' || description || ' ' || body), lower($3)) > 0)
ORDER BY coalesce(words @@ every_word, false) DESC, coalesce(ts_rank(words, any_word), 0) DESC,
         updated_ms DESC, slug, agent_id LIMIT 200

-- name: skill
SELECT slug, name, description, agent_id, body, updated_ms FROM skills
WHERE workspace_id = $1 AND slug = $2 AND ($3::text IS NULL OR agent_id = $3) ORDER BY updated_ms DESC, agent_id LIMIT 1

-- name: documents
SELECT id, title, content_type, characters, created_ms FROM knowledge
WHERE workspace_id = $1 AND ($2::text[] IS NULL OR id = ANY($2))
  AND ($3::bigint IS NULL OR (created_ms, id) < ($3, $4::text))
ORDER BY created_ms DESC, id DESC LIMIT $5

-- name: documents_total
SELECT count(*) FROM knowledge WHERE workspace_id = $1 AND ($2::text[] IS NULL OR id = ANY($2))

-- name: document
SELECT id, title, content_type, characters, created_ms,
       (SELECT string_agg(text, '' ORDER BY number) FROM passages WHERE workspace_id = $1 AND knowledge_id = $2) AS content
FROM knowledge WHERE workspace_id = $1 AND id = $2

-- name: passages
-- As `skills` has it: by any word of the query, from three letters on also by its beginning; those with every word first.
WITH asked AS (
    SELECT string_agg(word, ' & ')::tsquery AS every_word, string_agg(word, ' | ')::tsquery AS any_word
    FROM (
        SELECT '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
            || CASE WHEN length(lexeme) > 2 THEN ':*' ELSE '' END AS word
        FROM unnest(to_tsvector('simple', $2::text))
    ) AS given
)
SELECT knowledge_id, k.title, number, text
FROM passages p CROSS JOIN asked JOIN knowledge k ON k.workspace_id = p.workspace_id AND k.id = p.knowledge_id
WHERE p.workspace_id = $1 AND words @@ any_word
ORDER BY words @@ every_word DESC, ts_rank(words, any_word) DESC, k.created_ms DESC, knowledge_id, number LIMIT $3

-- name: passages_with
-- The whole query as a part of the text: for scripts that put no spaces between words.
SELECT knowledge_id, k.title, number, text
FROM passages p JOIN knowledge k ON k.workspace_id = p.workspace_id AND k.id = p.knowledge_id
WHERE p.workspace_id = $1 AND strpos(lower(text), lower($2)) > 0
ORDER BY k.created_ms DESC, knowledge_id, number LIMIT $3

-- name: stops
-- Those that stand there still: a partition that has gone on since has another position.
SELECT s.partition, s."offset", s.fault, s.stopped_ms, s.headers, octet_length(s.value) AS size
FROM stops s JOIN positions p USING (partition)
WHERE p.projection = $1 AND p.next_offset = s."offset"
  AND NOT EXISTS (SELECT FROM skips k WHERE k.partition = s.partition AND k."offset" = s."offset")
ORDER BY s.partition

-- name: skips
SELECT partition, "offset", fault, reason, user_id, skipped_ms, headers, octet_length(value) AS size FROM skips
WHERE $1::int IS NULL OR (partition = $1 AND "offset" = $2)
ORDER BY skipped_ms DESC, partition, "offset" LIMIT $3

-- name: skips_total
SELECT count(*) FROM skips
