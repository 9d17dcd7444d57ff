"""Benches: what the models and the system are worth, by commands that anyone can repeat."""
