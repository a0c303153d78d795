"""Weight files: bundled networks, cache, download, archives, readers that check sizes."""
