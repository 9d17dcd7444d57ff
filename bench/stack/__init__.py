"""Benches of the default model: streaming a log, figures within requests, all logs in one table."""
