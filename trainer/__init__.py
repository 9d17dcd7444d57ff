"""Samples to models: predict, learn, record, publish."""
