"""Parley's gateway."""
