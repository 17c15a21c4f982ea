"""The models that agents can run on: `build` makes the providers, `provider_of` says which serves a name."""

from __future__ import annotations

from collections.abc import Mapping

from parley_dispatcher.providers.base import Provider
from parley_dispatcher.providers.later import Closable, Later
from parley_dispatcher.providers.scripted import ScriptedModel
from parley_dispatcher.settings import Settings, secret_of
from parley_events.clock import Clock
from parley_events.objects import Objects


def build(settings: Settings, objects: Objects, clock: Clock) -> dict[str, Provider]:
    """The providers by name."""

    def make() -> Closable:
        from parley_dispatcher.providers.claude import Claude

        return Claude(
            objects,
            api_key=settings.anthropic_api_key,
            base_url=settings.anthropic_base_url,
            stall_s=settings.model_stall_s,
            secret_of=secret_of,
            clock=clock,
        )

    at_once = settings.anthropic_api_key or settings.anthropic_base_url
    return {"scripted": ScriptedModel(settings.model_stall_s, clock), "claude": make() if at_once else Later(make)}


async def close(providers: Mapping[str, Provider]) -> None:
    """Close what `build` made."""
    for provider in providers.values():
        if isinstance(provider, Closable):
            await provider.close()


def provider_of(providers: Mapping[str, Provider], model: str) -> Provider:
    """The provider that serves a model's name: `scripted` is the scripted one, every other name is Claude's, or is
    known to the agent's own server."""
    return providers["scripted" if model == "scripted" else "claude"]
