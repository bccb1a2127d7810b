"""Exports a model for serving, and publishes its encoder for fine-tuning.

In: a model that `tlkit` built, examples and a report. Out: `<directory>/<version>/`, a
SavedModel in TF Serving's form, written atomically; or the encoder as a SavedModel in
TF Hub's reusable form. In the order in which `export` uses them:

- `exporting`: `export`, which calls all of the following.
- `export_examples`: takes, saves and loads the examples for checks and warm-up.
- `signatures`: the functions `serving_default`, `embed` and `tensors`. Their inputs are
  defined here. The fields of a response (`label`, `score`, …) are made by the task:
  `Classification.answer` in `tlkit/tasks/classification.py`; here, they are blanked
  for images that cannot be decoded.
- `versions`: the version's number, the temporary folder and the rename.
- `extra_files`: `assets.extra`, with the model card and the server's settings.
- `parity_check`: compares the export's predictions with the model's, by
  `standalone_predictions`, a script in a process that does not import `tlkit`.
- `lite`: converts the model to LiteRT and measures the loss of accuracy.
- `publishing`: `publish`, which writes the encoder and its preprocessor.

Words: a *signature* is a named function of a SavedModel; a *raw* example is an encoded
image or a text; *parity* is the equality of served and local predictions.
"""

from .export_examples import load_examples as load_examples
from .export_examples import save_examples as save_examples
from .export_examples import signature_inputs as signature_inputs
from .export_examples import take_examples as take_examples
from .exporting import export as export
from .parity_check import predict_standalone as predict_standalone
from .publishing import publish as publish
from .signatures import RAW as RAW
