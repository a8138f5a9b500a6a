"""The worlds of tests/http: see tests/client."""

from tests.http.conftest import borrower, loan, open_world, world

__all__ = ["borrower", "loan", "open_world", "world"]
