"""Runs the Flink job; it knows no feature."""
