"""The HTTP server that ranks with fresh vectors, and its experiments."""
