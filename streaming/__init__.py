"""Events on Kafka: schemas, broker, replay, and the Flink job."""
