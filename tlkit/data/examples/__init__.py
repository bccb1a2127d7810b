"""examples: to be described."""
