"""images: to be described."""

from .decoder import decode as decode
from .decoder import decode_where_possible as decode_where_possible
from .resize import crop as crop
from .resize import resize as resize
