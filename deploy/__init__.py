"""The local launcher and the files that run headrace elsewhere."""
