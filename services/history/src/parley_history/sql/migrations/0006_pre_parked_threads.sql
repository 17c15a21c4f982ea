-- For the threads that a new owner of a partition may leave alone: were they parked last, or did something end since?
-- (`open_threads`; one row per run and park.)
CREATE INDEX facts_parked ON facts (stream, seq)
    WHERE type IN ('run.waiting', 'thread.cancelling', 'run.completed', 'run.failed', 'run.cancelled');
