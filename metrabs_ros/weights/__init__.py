"""Weight files: store, download, archives, and readers that check sizes first."""
