"""Parley in a terminal: `parley chat`, `parley threads`, `parley tail`, over the native contract.

`native` speaks the contract and comes back after every break; `story` says what its frames mean; `blocks`, `prose` and
`region` make rows of it that end up right in the scrollback, pure; `screen` and `markdown` draw (the only importers of
rich), `line` reads (the only importer of prompt_toolkit), `keys` listens while an answer streams, `watch` shows a run
with all of them, `past` one that has ended. `chat`, `once`, `threads` and `tail` are the commands.
"""
