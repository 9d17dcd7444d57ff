"""What learns: open rows, the state machine, its models and their evaluation."""
