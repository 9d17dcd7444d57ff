"""Drafts the declaration of a log from a look at its files."""
