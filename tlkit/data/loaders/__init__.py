"""loaders: to be described."""
