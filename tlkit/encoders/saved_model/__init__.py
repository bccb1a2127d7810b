"""Reading a SavedModel: checked before it is loaded, then its functions and variables.

In: a folder with a SavedModel, or a `tf.Module` in memory. Out: a `Restored` object,
whose functions `..graph` flattens. Files, in the order of use:

* `trust`: rejects a SavedModel that uses other files than its own, connects to other
  machines or runs Python, unless the user trusts it.
* `outside_ops`: finds the ops of a SavedModel that do this.
* `op_effects`: lists which of TensorFlow's ops have effects outside the graph.
* `saved_model_reader`: loads the SavedModel; `Restored` has its functions, variables
  and losses.
* `endpoints`: which function runs inference, which training, and their arguments.
"""

from .saved_model_reader import outside_strategy as outside_strategy
from .saved_model_reader import read_saved_model as read_saved_model
