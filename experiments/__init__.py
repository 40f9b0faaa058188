"""Experiments behind docs/evidence.md."""
