"""Following threads and runs: from the log's tail and history's facts to the frames that one client sees.

hub       one per process: tails facts and pieces, feeds listeners and those who wait for an outcome
listener  a bounded queue that the hub fills
kept      the pieces of unfinished calls, for those who join in the middle
follow    pure: facts in order and pieces in any order → what is shown, with the cursor after each
cursor    the resume point, as text
join      a client's feed: stored facts, then live ones, joined at the exact seq
channel   all who watch the same in the same words, fed by one follower
many      a client's feed of many threads (`many_stream`, `many_channel`, `vector`, `opened`, `owners`, `order`)
sse       frames over the wire (`frames`, `outlet`; `rotation` ends streams in turn)
recall    what was open where a client comes back
"""
