"""A real server for the driver: the fixtures of the server's own tests."""

from tests.serving.conftest import model, models, shared

__all__ = ["model", "models", "shared"]
