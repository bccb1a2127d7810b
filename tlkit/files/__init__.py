"""files: to be described."""
