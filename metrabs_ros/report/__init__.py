"""What a team wants to know of a recording, on one page that needs no network."""
