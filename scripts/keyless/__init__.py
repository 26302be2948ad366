"""Keys that stay on this machine, and what a session has in their place."""
