"""The fence around a sandbox without a network: what it reaches all the same, and who decides."""
