"""Parley's standalone."""
