"""Run by `test_workers.py` as each of two workers; prints what it saw as JSON."""

import json
import os
import signal
import sys
import time

import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.training.strategies import rendezvous, workers


def say(**seen):
    print(json.dumps(seen), flush=True)


me = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
before = signal.getsignal(signal.SIGTERM)
strategy = rendezvous.connect(60)
values = [me + 1, 0.1 * (me + 1), 2**62 + me, -5 - me, bool(1 - me), 1e-310 / (me + 1)]
say(
    same=rendezvous.connect() is strategy,
    count=workers.worker_count(strategy),
    chief=workers.is_chief(strategy),
    agreed=workers.broadcast_from_chief(strategy, values),
    any=[workers.any_worker(strategy, me == k) for k in (0, 1, 2)],
    each=workers.any_worker_each(strategy, [False, me == 0, me == 1]),
    kinds=[type(v).__name__ for v in workers.broadcast_from_chief(strategy, values)],
    sigterm=signal.getsignal(signal.SIGTERM) is before,
)
victim = int(sys.argv[1])
if me == victim:
    time.sleep(1)  # until the other has the last results, too
    os.kill(os.getpid(), signal.SIGKILL)
began = time.monotonic()
try:
    with workers.naming_lost_workers(strategy):
        while True:  # as a loop that trains would
            strategy.reduce("SUM", tf.constant(1.0), axis=None)
except TrainingError as error:
    say(lost=str(error), seconds=time.monotonic() - began)
