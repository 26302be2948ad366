"""What a session brings along from this machine, one topic each."""
