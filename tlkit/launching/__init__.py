"""Several workers: who they are, and how they are started, watched and restarted.

Nothing here imports TensorFlow: the launcher is up at once, and stays small.
"""

from .clusters import Cluster as Cluster
from .clusters import read_cluster as read_cluster
from .clusters import unproxied as unproxied
