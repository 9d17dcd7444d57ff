"""Learning: open rows, the state machine of warm-up and stream, models, evaluation."""
