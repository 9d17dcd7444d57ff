"""The default model under test: its stream, figures within requests, all logs in one table."""
