"""Features, declared once: the job's SQL, the offline engine, Feast and model inputs follow."""
