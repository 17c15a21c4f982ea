"""Rebuilding the view: folded from the beginning of the log into a new schema beside the live one, compared, switched.

run.py       the whole of it, and the way back
fill.py      the fold of several partitions side by side; `spread.py`: in several processes (`part.py` is one)
load.py      the fold of one partition, by COPY (`held.py`: rows that may still change)
follow.py    keeps the new schema beside the live one: the projector, on a log that ends where the live view stands
compare.py   whether two schemas say the same
switch.py    the live projectors held for a moment; the exchange of the schemas' names
schemas.py   schemas and their tables
command.py   `python -m parley_history rebuild`
"""
