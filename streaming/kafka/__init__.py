"""Kafka: client, embedded broker, topics, time marks, the ledger of events."""
