"""What the user has set: the environment, .env files, options, and the consent to them."""
