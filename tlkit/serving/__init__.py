"""A model becomes a service."""

from .export_examples import columns as columns
from .export_examples import load_rows as load_rows
from .export_examples import rows_of as rows_of
from .export_examples import save_rows as save_rows
from .exporting import export as export
from .parity_check import ask as ask
from .publishing import publish as publish
from .signatures import RAW as RAW
