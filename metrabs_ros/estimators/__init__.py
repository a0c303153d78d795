"""The steps from an image to its people, for each kind of network."""
