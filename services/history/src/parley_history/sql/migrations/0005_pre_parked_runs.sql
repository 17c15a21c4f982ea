-- Parked runs: what people are asked to approve, and threads that expire when nothing happens in them.

-- idle_s: how long a thread may be idle (NULL: for ever). open_runs: its top-level runs that have not ended, counted only
-- where idle_s is set: no thread that is there already has one, so nothing is to be filled in.
ALTER TABLE threads
    ADD COLUMN idle_s integer,
    ADD COLUMN open_runs integer NOT NULL DEFAULT 0;

-- status: open, approved, denied, expired, or closed (its run ended before anyone answered).
CREATE TABLE approvals (
    id text PRIMARY KEY,
    workspace_id uuid NOT NULL,
    thread_id text NOT NULL,
    run_id text NOT NULL,
    agent_id text NOT NULL,
    seq bigint NOT NULL,
    tool_call_id text NOT NULL,
    name text NOT NULL,
    arguments json NOT NULL,
    question text,
    input_schema json,
    who json NOT NULL,
    created_ms bigint NOT NULL,
    due_ms bigint NOT NULL,
    status text NOT NULL,
    answered_by text,
    comment text,
    edited json,
    answered_ms bigint
);
CREATE INDEX approvals_by_time ON approvals (workspace_id, created_ms DESC, id DESC);
CREATE INDEX approvals_open ON approvals (workspace_id, created_ms DESC, id DESC) WHERE status = 'open';
CREATE INDEX approvals_of_thread ON approvals (thread_id, seq);
CREATE INDEX approvals_of_run ON approvals (run_id) WHERE status = 'open';

-- For cancelling all runs of a filter.
CREATE INDEX runs_open_by_time ON runs (workspace_id, created_ms, id) WHERE ended_seq IS NULL AND parent_run_id IS NULL;

ALTER TABLE approvals ENABLE ROW LEVEL SECURITY;
ALTER TABLE approvals FORCE ROW LEVEL SECURITY;
CREATE POLICY projector ON approvals TO parley_projector USING (true) WITH CHECK (true);
CREATE POLICY reader ON approvals FOR SELECT TO parley_reader
    USING (workspace_id = nullif(current_setting('parley.workspace', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON approvals TO parley_projector;
GRANT SELECT ON approvals TO parley_reader;
