"""Live view and replay of people in a browser, with Rerun."""
