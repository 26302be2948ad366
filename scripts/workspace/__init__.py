"""The directory: how a sandbox shows it, copies of it, and what in it programs here act on."""
