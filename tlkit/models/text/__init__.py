"""text: to be described."""

from .packer import Packing as Packing
from .text_inputs import TextInputs as TextInputs
from .text_preprocessors import SavedPreprocessor as SavedPreprocessor
from .text_preprocessors import WordPiecePreprocessor as WordPiecePreprocessor
from .truncation import keep as keep
