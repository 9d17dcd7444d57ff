"""The user state: a Gaussian belief about each user over fixed item factors."""
