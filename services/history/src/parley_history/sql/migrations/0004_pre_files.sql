-- Files of threads: what came with messages (attachment), and what tools made (artifact). Every version of a name is
-- kept, and the newest is the one that is meant; the bytes lie in the object store.

CREATE TABLE files (
    thread_id text NOT NULL,
    seq bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    workspace_id uuid NOT NULL,
    kind text NOT NULL,
    content_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    run_id text NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (thread_id, seq, name)
);
CREATE INDEX files_by_name ON files (thread_id, kind, name, seq DESC);

ALTER TABLE files ENABLE ROW LEVEL SECURITY;
ALTER TABLE files FORCE ROW LEVEL SECURITY;
CREATE POLICY projector ON files TO parley_projector USING (true) WITH CHECK (true);
CREATE POLICY reader ON files FOR SELECT TO parley_reader
    USING (workspace_id = nullif(current_setting('parley.workspace', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON files TO parley_projector;
GRANT SELECT ON files TO parley_reader;

-- What is there already: attachments could not be sent before, and no tool made files.
