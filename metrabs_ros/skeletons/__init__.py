"""Joint conventions: names, edges and which network outputs they select."""
