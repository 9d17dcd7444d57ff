"""The simulator: made-up traffic whose true click probabilities are known."""
