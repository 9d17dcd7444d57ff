"""The trainer: predicts each sample, records, learns, publishes."""
