"""Samples to models: predict, record, learn, publish."""
