"""Benches: they measure models and system, by commands that anyone can repeat."""
