"""Report of the people in a recording, as a self-contained HTML page."""
