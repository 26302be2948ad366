"""The order of steps: images, sandboxes, connections, sessions, and tidying up."""
