"""Runs the Flink job from its SQL; it knows no feature."""
