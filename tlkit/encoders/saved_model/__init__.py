"""Reading a SavedModel: checked before it is loaded, then its functions and variables.

In: a folder with a SavedModel, or a `tf.Module` in memory. Out: a `Restored` object,
whose functions `..graph` flattens. Files, in the order of use:

* `trust`: rejects a SavedModel that does more than compute, unless it is trusted.
* `outside_ops`: finds its ops that act on files, the network or Python, other than
  those on its own assets and checkpoints.
* `op_effects`: the effects of TensorFlow's ops beyond computing.
* `saved_model_reader`: loads it; `Restored` has the functions, variables and losses.
* `endpoints`: which function runs inference, which training, and their arguments.
"""

from .saved_model_reader import outside_strategy as outside_strategy
from .saved_model_reader import read_saved_model as read_saved_model
