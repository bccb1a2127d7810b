"""How many drawn trainings end as with Keras's `fit`, and why others are refused.

    python -m tests.benchmarks.parity [--cases 2000] [--seed 0] [--replicas 2]

The cases are those of tests/training/parity.py. Prints how many were equal, refused by
reason, or not trained by Keras itself, and describes all that were neither. With
`--replicas 2`, both train on two logical CPUs.

The bars: of 2,000 cases none unequal by more than 1e-5 of the weights, and no error
that is not one of tlkit.
"""

import argparse
import json

import tensorflow as tf

from tests.training.parity import outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replicas", type=int, choices=(1, 2), default=1)
    options = parser.parse_args()
    strategy = None
    if options.replicas == 2:
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    numbers, failures = outcomes(options.cases, options.seed, strategy)
    for failure in failures:
        print(failure)
    print(json.dumps(numbers | {"failed": len(failures)}))


if __name__ == "__main__":
    main()
