-- Who follows many threads of a workspace reads its facts by their places on the log: whatever the other workspaces have on
-- the same partition, and however long ago it was, only what is read is looked at.

CREATE INDEX facts_by_offset ON facts (workspace_id, partition, "offset");
