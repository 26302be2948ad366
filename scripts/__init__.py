"""What the tasks are made of; nothing here but cli.py knows invoke."""

__version__ = "0.1.0"
