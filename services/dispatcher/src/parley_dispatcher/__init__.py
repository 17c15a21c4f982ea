"""Parley's dispatcher."""
