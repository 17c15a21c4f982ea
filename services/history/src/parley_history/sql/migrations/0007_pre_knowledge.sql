-- Documents of a workspace. A document is kept as its passages, which are its text cut in pieces: put together in their
-- order they are the whole. The words of a passage begin with those of its document's title; `simple` as for skills.
--
-- There is no index over the words, for the reason that skills have none (0003): the policy comes before `@@`. What a
-- search looks at is bounded by the characters that a workspace's documents may have together.
CREATE TABLE knowledge (
    workspace_id uuid NOT NULL,
    id text NOT NULL,
    title text NOT NULL,
    content_type text NOT NULL,
    characters integer NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX knowledge_by_time ON knowledge (workspace_id, created_ms DESC, id DESC);

CREATE TABLE passages (
    workspace_id uuid NOT NULL,
    knowledge_id text NOT NULL,
    number integer NOT NULL,
    text text NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (workspace_id, knowledge_id, number)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['knowledge', 'passages'] LOOP
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

-- What was given to the model beside a message stays readable with it.
ALTER TABLE messages
    ADD COLUMN lead_context json,
    ADD COLUMN knowledge_ids json NOT NULL DEFAULT '[]';

-- Of the messages that are there already the facts say it. No documents could be added before. An escaped U+0000, which
-- PostgreSQL takes nothing out of JSON beside, is another escape meanwhile: one that our writers never make.
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
ALTER TABLE facts NO FORCE ROW LEVEL SECURITY;
UPDATE messages m
SET lead_context = replace(f.body ->> 'lead_context', '\ue0e0', '\u0000')::json,
    knowledge_ids = coalesce(replace(f.body ->> 'knowledge_ids', '\ue0e0', '\u0000')::json, '[]')
FROM (
    SELECT stream, seq, replace(convert_from(body, 'UTF8'), '\u0000', '\ue0e0')::json AS body
    FROM facts WHERE type = 'message.posted'
) AS f
WHERE f.stream = m.thread_id AND f.seq = m.seq AND m.part = 1;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
ALTER TABLE facts FORCE ROW LEVEL SECURITY;
