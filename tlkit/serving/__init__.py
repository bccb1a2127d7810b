"""A model becomes a service."""

from .exporting import export as export
