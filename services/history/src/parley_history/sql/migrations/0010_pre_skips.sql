-- Records that keep a partition of the view from going on, and those that an administrator had it skip. Neither is a
-- projection: no fact says them, and a fold from the beginning of the log must make the same choice again, so whoever
-- makes a new schema takes `skips` over. They have bytes of any workspace, so readers see none of them.

CREATE TABLE stops (
    partition integer PRIMARY KEY,
    "offset" bigint NOT NULL,
    fault text NOT NULL,
    stopped_ms bigint NOT NULL,
    -- The record itself; without headers there is none.
    time_ms bigint,
    key bytea,
    headers json,
    value bytea
);

CREATE TABLE skips (
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    fault text NOT NULL,
    reason text NOT NULL,
    user_id text NOT NULL,
    key_id text NOT NULL,
    skipped_ms bigint NOT NULL,
    time_ms bigint NOT NULL,
    key bytea,
    headers json NOT NULL,
    value bytea,
    PRIMARY KEY (partition, "offset")
);

ALTER TABLE stops ENABLE ROW LEVEL SECURITY;
ALTER TABLE stops FORCE ROW LEVEL SECURITY;
ALTER TABLE skips ENABLE ROW LEVEL SECURITY;
ALTER TABLE skips FORCE ROW LEVEL SECURITY;
CREATE POLICY projector ON stops TO parley_projector USING (true) WITH CHECK (true);
CREATE POLICY projector ON skips TO parley_projector USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON stops TO parley_projector;
-- What was skipped stays on record: nobody changes it, and nobody takes it away.
GRANT SELECT, INSERT ON skips TO parley_projector;
