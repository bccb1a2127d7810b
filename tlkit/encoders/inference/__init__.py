"""inference: to be described."""
