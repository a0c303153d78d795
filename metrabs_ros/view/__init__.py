"""The browser view: its scene, its server and the access rules."""
