-- What a skill is for, and its words for the search: the config `simple` knows no language, so that it serves all.
-- A tsvector has at most 1 MiB, so only the beginning of a body is taken: a longer one must not stop the projector.
--
-- There is no index over the words on purpose. Under row-level security PostgreSQL may not test `@@`, which is not
-- leakproof, before the policy, so that it could never be used; the primary key leads to the few rows of an agent.
ALTER TABLE skills ADD COLUMN description text NOT NULL DEFAULT '';
ALTER TABLE skills ADD COLUMN words tsvector NOT NULL GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', slug || ' ' || left(name, 1000)), 'A')
    || setweight(to_tsvector('simple', left(description, 10000)), 'B')
    || setweight(to_tsvector('simple', left(body, 50000)), 'C')
) STORED;
