"""A hand-written training loop, which `test_launch.py` runs as each worker of a job.

Arguments: a folder, and the seconds to sleep after each call. The chief saves the
weights in the folder; a restarted job continues from there.
"""

import json
import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

from tlkit.training.strategies import workers
from tlkit.training.strategies.rendezvous import connect

UPDATES, IN_A_CALL = 30, 2

folder, rest = pathlib.Path(sys.argv[1]), float(sys.argv[2])
me = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
(folder / f"pid{me}-{os.environ['TLKIT_RESTART']}").write_text(str(os.getpid()))

strategy = connect(60)
chief = workers.is_chief(strategy)
saved = folder / "weights.npz"
random = np.random.default_rng(0)
INPUTS = random.normal(size=(24, 3)).astype("float32")
LABELS = INPUTS @ np.array([1, -2, 3], "float32")

with strategy.scope():
    weights = tf.Variable(tf.zeros(3))
done = 0
if saved.exists():
    with np.load(saved) as file:
        done = int(file["done"])
        weights.assign(file["weights"])


def of_worker(context):
    parts, part = context.num_input_pipelines, context.input_pipeline_id
    dataset = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).shard(parts, part)
    return dataset.repeat().batch(4).skip(done)


def step(batch):
    inputs, labels = batch
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((tf.linalg.matvec(inputs, weights) - labels) ** 2)
    gradient = tape.gradient(loss, weights)
    context = tf.distribute.get_replica_context()
    weights.assign_sub(0.01 * context.all_reduce("SUM", gradient))


@tf.function
def several(batches, count):
    for _ in tf.range(count):
        strategy.run(step, args=(next(batches),))


batches = iter(strategy.distribute_datasets_from_function(of_worker))
with workers.naming_lost_workers(strategy):
    while done < UPDATES:
        several(batches, tf.constant(IN_A_CALL))
        done += IN_A_CALL
        workers.any_worker(strategy, False)
        if chief:
            np.savez(folder / "half.npz", weights=weights.numpy(), done=done)
            os.replace(folder / "half.npz", saved)
        time.sleep(rest)
print("weights", json.dumps(weights.numpy().tolist()))
