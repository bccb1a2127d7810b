"""Tasks: what a model predicts, and everything that follows from it.

Labels come in; a task goes out. It defines the size of the head, the loss, the metrics,
the decoding of logits and the outputs of a served model. `models` builds a head from
it, `training` gets loss and metrics from it, and `serving` the outputs. A model stores
its task as a config, which `task_from_config` reads.

- `classification`: one label out of several.

To add a task, write a class with the methods of `Classification`, and add the class to
`task_from_config`.
"""

from .classification import Classification as Classification
from .classification import classification as classification
from .classification import task_from_config as task_from_config
