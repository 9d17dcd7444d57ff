"""Features declared once: SQL, feature store and model inputs come from here."""
