"""Traffic whose truth is known: users, items, what is shown, what is done, and when it arrives."""
