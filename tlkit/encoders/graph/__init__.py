"""graph: to be described."""
