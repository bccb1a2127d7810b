"""Text: raw texts become rows of token ids.

Strings, or pairs of strings, and their options, a `Packing`, come in; int32 token ids,
masks and types, padded to one of a few lengths, go out. In the order of the data:

- `text_inputs`: the layer that stores a model's packing and preprocessor.
- `text_preprocessors`: tokenizes with a vocabulary, or calls a published preprocessor.
- `packer`: `Packing`, how many tokens of which text a row contains.
- `truncation`: selects the tokens of a long text that are used.
- `windows`: splits a long text into windows; its layers put each window into a row of
  its own, and average the features of these rows.
"""

from .packer import Packing as Packing
from .text_inputs import TextInputs as TextInputs
from .text_preprocessors import SavedPreprocessor as SavedPreprocessor
from .text_preprocessors import WordPiecePreprocessor as WordPiecePreprocessor
from .truncation import truncate as truncate
