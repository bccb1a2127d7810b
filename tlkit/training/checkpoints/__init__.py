"""checkpoints: to be described."""
