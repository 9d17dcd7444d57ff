"""Events on Kafka: schemas, broker, logs, replay, and the Flink job."""
