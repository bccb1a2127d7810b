"""A model becomes a service."""

from .exporting import export as export
from .publishing import publish as publish
