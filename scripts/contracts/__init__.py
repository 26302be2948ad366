"""The values and protocols that rooms hand to each other: frozen, and with no effects."""
