"""Following threads and runs: from the log's tail and history's facts to the frames that one client sees.

hub      one per process: tails facts and pieces, feeds listeners and those who wait for an outcome
follow   pure: facts in order and pieces in any order → what is shown, with the cursor after each
cursor   the resume point, as text
join     a client's feed: stored facts, then live ones, joined at the exact seq
sse      frames over the wire
"""
