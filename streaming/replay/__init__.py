"""Replay: sends an event log into the topics at any speed, and resumes after a stop."""
