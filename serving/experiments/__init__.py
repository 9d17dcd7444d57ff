"""A/B experiments: assignment of users, and their statistics."""
