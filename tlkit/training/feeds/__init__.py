"""feeds: to be described."""
