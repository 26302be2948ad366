"""The way into a sandbox: OpenSSH through a pipe, and what runs at its other end."""
