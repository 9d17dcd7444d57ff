"""What the server ranks with: store follower, live model, ranking."""
