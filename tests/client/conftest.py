"""The small service of `tests/server`, for the clients."""

from tests.server.conftest import service

__all__ = ["service"]
