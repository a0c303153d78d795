"""Joint conventions: names, edges and indices into network outputs."""
