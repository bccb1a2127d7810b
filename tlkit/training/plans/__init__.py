"""plans: to be described."""
