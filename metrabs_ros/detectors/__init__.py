"""Where people are, roughly."""
