"""The networks, and how their weights are found and checked."""
