"""Runs all parts on one machine: launcher, parts, ports, lock, client, probe."""
