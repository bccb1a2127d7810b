"""Text: raw texts become rows of token ids.

Comes in: strings, or pairs of strings, and a `Packing`, the options. Goes out: int32
token ids, masks and types, padded to one of a few lengths. In the order of the data:

- `text_inputs`: the layer that stores a model's packing and preprocessor.
- `text_preprocessors`: tokenizes with a vocabulary, or calls a published preprocessor.
- `packer`: `Packing`, how many tokens of which text a row contains.
- `truncation`: the tokens of a long text that are used. `windows`: a long text as
  several windows, and the layers that fold them and average their features.
"""

from .packer import Packing as Packing
from .text_inputs import TextInputs as TextInputs
from .text_preprocessors import SavedPreprocessor as SavedPreprocessor
from .text_preprocessors import WordPiecePreprocessor as WordPiecePreprocessor
from .truncation import truncate as truncate
