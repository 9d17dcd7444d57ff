"""What the server ranks with: follower of the store, live model, ranking."""
