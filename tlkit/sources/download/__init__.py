"""download: to be described."""

from .download_errors import refuse_network as refuse_network
