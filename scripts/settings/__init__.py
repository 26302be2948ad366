"""What there is to set: each setting, how it is written, and which of two values gives more."""
