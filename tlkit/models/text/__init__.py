"""text: to be described."""

from .packer import Packing as Packing
from .text_preprocessors import WordPiecePreprocessor as WordPiecePreprocessor
from .truncation import keep as keep
