"""NLF: a network that localises any point of the body in a crop, with an uncertainty."""
