"""Skills of an agent, learned in threads or given in the workspace's stream: the newest of a slug counts."""

from __future__ import annotations

from parley_events.codec import Fact
from parley_events.facts import SkillChanged
from parley_history.projections.rows import SkillRow, View


def skill_changed(view: View, fact: Fact, body: SkillChanged) -> None:
    keep_newest(
        view,
        SkillRow(
            workspace_id=fact.workspace_id,
            agent_id=body.agent_id,
            slug=body.slug,
            # Ids break the tie of two versions in one millisecond: they must rise as the seq does.
            id=f"{fact.stream}/{fact.seq or 0:015d}",
            name=body.name,
            description=body.description,
            body=body.body,
            updated_ms=fact.time_ms,
        ),
    )


def keep_newest(view: View, row: SkillRow) -> None:
    """The greatest (time, id) wins, whatever the order in which partitions are folded (as `put_skills` has it)."""
    key = (row.workspace_id, row.agent_id, row.slug)
    other = view.skills.get(key)
    if other is None or (row.updated_ms, row.id) > (other.updated_ms, other.id):
        view.skills[key] = row
