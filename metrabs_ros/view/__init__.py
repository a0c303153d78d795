"""People in a browser: the image, the space in front of the camera, and how it goes."""
