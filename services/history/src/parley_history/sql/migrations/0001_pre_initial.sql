-- Every table of the view. Times are ms since 1970. JSON that people or models may have written is `json`, not `jsonb`,
-- which cannot hold U+0000. Tables with rows of a workspace have its id, and row policies (end of the file).

CREATE TABLE positions (
    projection text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    epoch bigint NOT NULL,
    last_number bigint NOT NULL,
    PRIMARY KEY (projection, partition)
);

CREATE TABLE streams (
    key text PRIMARY KEY,
    partition integer NOT NULL,
    workspace_id uuid NOT NULL,
    seq bigint NOT NULL
);

CREATE TABLE facts (
    stream text NOT NULL,
    seq bigint NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    type text NOT NULL,
    run_id text,
    workspace_id uuid NOT NULL,
    time_ms bigint NOT NULL,
    headers json NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (stream, seq)
);

CREATE TABLE threads (
    id text PRIMARY KEY,
    workspace_id uuid NOT NULL,
    title text,
    agent_id text,
    team_id text,
    user_id text,
    channel text NOT NULL,
    pinned boolean NOT NULL,
    archived boolean NOT NULL,
    system_prompt text,
    context json,
    metadata json NOT NULL,
    forked_from text,
    forked_at bigint,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    active_ms bigint NOT NULL,
    last_message_ms bigint,
    message_count integer NOT NULL,
    cleared_seq bigint NOT NULL,
    expired boolean NOT NULL,
    deleted boolean NOT NULL
);
CREATE INDEX threads_by_activity ON threads (workspace_id, active_ms DESC, id DESC) WHERE NOT deleted;
CREATE INDEX threads_of_user ON threads (workspace_id, user_id, active_ms DESC, id DESC) WHERE NOT deleted;

-- part: 0 the system row before a message, 1 the fact's own message.
CREATE TABLE messages (
    thread_id text NOT NULL,
    seq bigint NOT NULL,
    part smallint NOT NULL,
    id text NOT NULL,
    workspace_id uuid NOT NULL,
    number bigint NOT NULL,
    run_id text,
    role text NOT NULL,
    content text,
    tool_call_id text,
    tool_name text,
    tool_arguments json,
    tool_status text,
    author json,
    attachments json NOT NULL,
    metadata json NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (thread_id, seq, part)
);

CREATE TABLE runs (
    id text PRIMARY KEY,
    workspace_id uuid NOT NULL,
    thread_id text NOT NULL,
    partition integer NOT NULL,
    parent_run_id text,
    agent_id text NOT NULL,
    agent_version integer NOT NULL,
    status text NOT NULL,
    attempt integer NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    stop_reason text,
    error_code text,
    error_message text,
    message_id text NOT NULL,
    question_id text,
    answer_number bigint NOT NULL,
    answer text NOT NULL,
    last_text text NOT NULL,
    calls json NOT NULL,
    posted_seq bigint NOT NULL,
    ended_seq bigint,
    created_ms bigint NOT NULL,
    ended_ms bigint
);
CREATE INDEX runs_open ON runs (partition, thread_id) WHERE ended_seq IS NULL;

CREATE TABLE dues (
    stream text NOT NULL,
    due_key text NOT NULL,
    partition integer NOT NULL,
    workspace_id uuid NOT NULL,
    run_id text NOT NULL,
    due_ms bigint NOT NULL,
    PRIMARY KEY (stream, due_key)
);
CREATE INDEX dues_by_time ON dues (partition, due_ms);

CREATE TABLE notes (
    workspace_id uuid NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    body text,
    agent_id text NOT NULL,
    run_id text NOT NULL,
    thread_id text NOT NULL,
    seq bigint NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX notes_by_time ON notes (workspace_id, created_ms DESC, id DESC);

-- A skill may be learned in several threads, so on several partitions: the greatest (updated_ms, id) wins, which does
-- not depend on the order in which partitions are folded.
CREATE TABLE skills (
    workspace_id uuid NOT NULL,
    agent_id text NOT NULL,
    slug text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    body text NOT NULL,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (workspace_id, agent_id, slug)
);

CREATE TABLE workspaces (
    workspace_id uuid PRIMARY KEY,
    name text NOT NULL,
    context text,
    structures json NOT NULL
);

CREATE TABLE keys (
    workspace_id uuid NOT NULL,
    id text NOT NULL,
    key_hash text NOT NULL,
    user_id text NOT NULL,
    scopes json NOT NULL,
    rate_limit text,
    created_ms bigint NOT NULL,
    revoked boolean NOT NULL,
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX keys_by_hash ON keys (workspace_id, key_hash);

CREATE TABLE agents (
    workspace_id uuid NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    uuid text NOT NULL,
    spec json NOT NULL,
    seq bigint NOT NULL,
    deleted boolean NOT NULL,
    PRIMARY KEY (workspace_id, id, version)
);
CREATE INDEX agents_by_uuid ON agents (workspace_id, uuid);

CREATE TABLE teams (
    workspace_id uuid NOT NULL,
    id text NOT NULL,
    version integer NOT NULL,
    uuid text NOT NULL,
    spec json NOT NULL,
    PRIMARY KEY (workspace_id, id)
);

-- Who may see which rows. Neither role owns a table; FORCE holds the owner to the policies too.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.table_name FROM information_schema.columns c
        WHERE c.table_schema = current_schema() AND c.column_name = 'workspace_id'
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY projector ON %I TO parley_projector USING (true) WITH CHECK (true)', name);
        EXECUTE format(
            'CREATE POLICY reader ON %I FOR SELECT TO parley_reader '
            'USING (workspace_id = nullif(current_setting(''parley.workspace'', true), '''')::uuid)', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO parley_projector', name);
        EXECUTE format('GRANT SELECT ON %I TO parley_reader', name);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE ON positions TO parley_projector;
GRANT SELECT ON positions TO parley_reader;
