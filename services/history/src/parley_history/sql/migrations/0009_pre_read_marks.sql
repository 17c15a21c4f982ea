-- What a user has read. A thread's own user has one mark in it (read_seq: the seq up to which); answered_seq is the seq of
-- its newest answer that is shown. Whether anything is unread is then a matter of one row per thread, and those rows have
-- an index of their own, so that an inbox costs nothing for conversations in which all was read. (A column of its own,
-- since of a comparison of two PostgreSQL takes a third to be true.)
ALTER TABLE threads
    ADD COLUMN read_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN answered_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN unread boolean NOT NULL GENERATED ALWAYS AS (answered_seq > read_seq) STORED;

-- Of what is there already the messages and the facts say it. As in 0007, an escaped U+0000 is another escape meanwhile.
-- What the old code still folds after this has no answered_seq; the next answer in its thread brings it in.
ALTER TABLE threads NO FORCE ROW LEVEL SECURITY;
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
ALTER TABLE facts NO FORCE ROW LEVEL SECURITY;
UPDATE threads t SET answered_seq = a.seq
FROM (SELECT thread_id, max(seq) AS seq FROM messages WHERE role = 'assistant' GROUP BY thread_id) AS a
WHERE a.thread_id = t.id;
UPDATE threads t SET read_seq = r.seq
FROM (
    SELECT stream, body ->> 'user_id' AS user_id, max((body ->> 'up_to')::bigint) AS seq
    FROM (
        SELECT stream, replace(convert_from(body, 'UTF8'), '\u0000', '\ue0e0')::json AS body
        FROM facts WHERE type = 'thread.read'
    ) AS f
    GROUP BY 1, 2
) AS r
WHERE r.stream = t.id AND r.user_id = t.user_id;
ALTER TABLE threads FORCE ROW LEVEL SECURITY;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
ALTER TABLE facts FORCE ROW LEVEL SECURITY;

CREATE INDEX threads_unread ON threads (workspace_id, user_id, agent_id, id) WHERE unread AND NOT deleted;
CREATE INDEX threads_of_channel ON threads (workspace_id, user_id, agent_id, channel);
CREATE INDEX messages_answers ON messages (thread_id, seq) INCLUDE (workspace_id) WHERE role = 'assistant';
