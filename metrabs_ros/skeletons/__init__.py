"""Joint conventions: joint names, edges and the network outputs that they select."""
