"""Several workers: who they are, and how they are started, watched and restarted.

Nothing here imports TensorFlow: the launcher is up at once, and stays small.
"""

from .cluster import Cluster as Cluster
from .cluster import read_cluster as read_cluster
from .cluster import unproxied as unproxied
