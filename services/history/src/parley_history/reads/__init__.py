"""What readers ask: each function runs one query of `sql/reads.sql` and answers in a shape of `parley_events.reads`.

    streams     how far the view is, what is due, stored facts
    workspaces  settings, keys, agents, teams, skills, documents
    threads     threads, messages, files
    runs        runs, approvals
    past        threads, messages and runs as they were
    answers     what all of these share

Answers are plain values for orjson; JSON that is stored as text or bytes is put into them as it is
(`orjson.Fragment`). The caller gives the connection: of the reader role, within a transaction for the workspace, where
a workspace is named; of the projector role otherwise.
"""
