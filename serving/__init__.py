"""The HTTP server: it ranks with fresh vectors, takes events in, and runs experiments."""
