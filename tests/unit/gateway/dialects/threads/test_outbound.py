"""What `threads` makes of facts and views, beyond the transcripts: figures that the scripted model has not."""

from __future__ import annotations

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Usage
from parley_gateway.dialects.threads import outbound
from parley_gateway.feed.follow import ShownFact
from tests.unit.gateway.feed.stories import THREAD, Story

RUN = ids.run_id(THREAD, "c")
PLAIN = {"input_tokens": 3, "output_tokens": 4}


@pytest.mark.parametrize(
    ("usage", "shown"),
    [
        (Usage(input_tokens=3, output_tokens=4), PLAIN),
        (
            Usage(input_tokens=3, output_tokens=4, cache_read_tokens=5),
            PLAIN | {"cache_read_tokens": 5, "cache_write_tokens": 0},
        ),
        (
            Usage(input_tokens=3, output_tokens=4, cache_write_tokens=6),
            PLAIN | {"cache_read_tokens": 0, "cache_write_tokens": 6},
        ),
    ],
)
def test_usage_tells_of_the_cache_where_it_was_used_and_is_as_ever_where_not(
    usage: Usage, shown: dict[str, int]
) -> None:
    story = Story()
    ends = (
        f.RunCompleted(run_id=RUN, message_id="m", stop_reason="end_turn", usage=usage),
        f.RunFailed(run_id=RUN, message_id="m", code="model_529", message="", usage=usage),
        f.RunCancelled(run_id=RUN, message_id="m", by="ann", usage=usage),
        f.ModelReturned(run_id=RUN, call=3, turn=0, blocks=(), stop_reason="end_turn", usage=usage),
        f.ModelFailed(run_id=RUN, call=3, turn=0, attempt=1, kind="cut", message="", usage=usage, retry=True),
    )
    frames = outbound.Frames(THREAD)
    for body in ends:
        story.add(body, RUN)
        [frame] = frames(ShownFact(story.facts[-1], ""))
        assert frame.data["usage"] == shown, body.type
