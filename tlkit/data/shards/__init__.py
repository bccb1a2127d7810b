"""shards: to be described."""
