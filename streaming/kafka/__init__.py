"""Everything about Kafka: client, broker, topics, time marks, the ledger of events."""
