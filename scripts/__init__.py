"""What the tasks are made of; nothing here but cli.py knows invoke."""
