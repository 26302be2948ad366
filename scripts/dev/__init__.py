"""Checks, tests and measurements of nddt itself."""
