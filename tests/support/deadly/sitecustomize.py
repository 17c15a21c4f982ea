"""Python runs this at its start where its folder is on PYTHONPATH: dispatchers then die of certain commands.

`thread.mark_read` up to 666 ends the process at once, up to 667 blocks it for ever.
"""

import os
import sys

if "parley_dispatcher" in sys.orig_argv:
    from parley_dispatcher import decide
    from parley_events.commands import MarkRead

    _harmless = decide.DECISIONS[MarkRead]

    def _deadly(state, command, body):  # type: ignore[no-untyped-def]
        if body.up_to == 666:
            os._exit(66)
        while body.up_to == 667:
            pass
        return _harmless(state, command, body)

    decide.DECISIONS[MarkRead] = _deadly
