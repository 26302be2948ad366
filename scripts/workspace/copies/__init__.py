"""Copies of a directory in sandboxes, and how they are made to agree with it."""
