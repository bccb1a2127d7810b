"""saved_model: to be described."""
