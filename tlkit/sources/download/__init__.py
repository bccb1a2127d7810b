"""download: to be described."""
