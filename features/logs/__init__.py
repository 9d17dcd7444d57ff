"""The feature declarations of the logs that come with headrace."""
