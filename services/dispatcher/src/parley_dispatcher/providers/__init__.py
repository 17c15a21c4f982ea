"""The models that agents can run on: `PROVIDERS` says which name leads to which."""

from __future__ import annotations

from parley_dispatcher.providers.base import Provider
from parley_dispatcher.providers.scripted import ScriptedModel
from parley_dispatcher.settings import Settings


def build(settings: Settings) -> dict[str, Provider]:
    """The providers by name. A model whose name is not here is played by `scripted`, for now."""
    return {"scripted": ScriptedModel(settings.model_stall_s)}


def provider_of(providers: dict[str, Provider], model: str) -> Provider:
    """The provider that serves a model's name."""
    return providers.get(model) or providers["scripted"]
