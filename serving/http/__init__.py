"""The HTTP interface: app, messages, problems, event intake."""
