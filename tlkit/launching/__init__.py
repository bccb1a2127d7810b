"""Launching: starts, watches and restarts the workers of a distributed job.

Comes in: the command line of `python -m tlkit.launch`, and the environment of
Kubernetes, Vertex AI or SLURM. Goes out: running workers, each with its `TF_CONFIG`,
and an exit status. The strategies in `training` read the same `TF_CONFIG`.

In the order in which a job passes them:

- `command`: the command line; decides which workers to start.
- `cluster`: reads and writes `TF_CONFIG`; finds free ports; bypasses proxies.
- `slurm`: the cluster of a SLURM job step.
- `gpus`: assigns the GPUs of this machine to local workers.
- `job`: runs the workers; restarts them if one dies; passes on signals.
- `processes`: one process per worker; prints its output with the worker's index.
- `output`: writes to the launcher's stdout and stderr.

Nothing here imports TensorFlow: the launcher starts fast and stays small.

Words: a *job* is all workers of one training. A *worker* is one process of it, known
by its *index*; the first is the *chief*. An *attempt* is one start of the workers.
"""

from .cluster import Cluster as Cluster
from .cluster import bypass_proxy as bypass_proxy
from .cluster import read_cluster as read_cluster
