"""The HTML report on the people in annotated recordings."""
