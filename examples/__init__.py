"""Things to look at, made through a live service."""
