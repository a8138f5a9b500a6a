"""Benchmarks: never part of the tests, and no figure here decides whether anything passes."""
