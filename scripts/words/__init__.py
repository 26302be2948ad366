"""The words that the user types: tasks and their options, one file a topic."""
