"""Weight files: cache, download, archives, and readers that check sizes before allocation."""
