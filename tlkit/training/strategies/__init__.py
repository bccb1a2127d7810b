"""strategies: to be described."""
