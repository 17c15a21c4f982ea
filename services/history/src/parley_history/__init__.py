"""Parley's history."""
