"""activations: to be described."""
