"""The HTTP interface: routes, messages, errors, intake of events and entities, outbox."""
