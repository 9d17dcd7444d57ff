"""Deployment: ``local/`` runs all parts on one machine; the other files run them elsewhere."""
