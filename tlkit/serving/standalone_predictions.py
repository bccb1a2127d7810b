"""A script: answers through an export's signatures, with nothing but TensorFlow.

    python -P plain_answers.py FOLDER ASKED.npz ANSWERS.npz

`export` runs it in a process of its own, which shows that a server without `tlkit`
gives the same. It may import nothing of `tlkit`.

Arrays of `ASKED.npz` are named `signature|input`; strings are `signature|input|bytes`
(all of them in a row, uint8) and `signature|input|lengths`, since NumPy's own strings
lose zeros at their end. Those of `ANSWERS.npz` are named `signature|output`.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf


def main(folder: str, asked: str, answers: str) -> None:
    served = _load(folder)
    found = {}
    for signature, inputs in _requests(asked).items():
        answer = served.signatures[signature](**inputs)
        for name, tensor in answer.items():
            array = tensor.numpy()
            if tensor.dtype == tf.string:  # objects, which would have to be pickled
                array = array.astype(np.bytes_)
            found[f"{signature}|{name}"] = array
    if "tlkit" in sys.modules:
        raise SystemExit("tlkit was imported, so this shows nothing")
    np.savez(answers, **found)


def _load(folder: str):
    try:
        return tf.saved_model.load(folder)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        if "Op type not registered" not in str(error):
            raise
    import tensorflow_text  # noqa: F401  its import registers the ops

    return tf.saved_model.load(folder)


def _requests(path: str) -> dict[str, dict[str, tf.Tensor]]:
    requests: dict[str, dict[str, tf.Tensor]] = {}
    with np.load(path) as arrays:
        for key in arrays:
            signature, name, *part = key.split("|")
            if part == ["lengths"]:
                continue
            array = arrays[key]
            if part == ["bytes"]:
                ends = np.cumsum(arrays[f"{signature}|{name}|lengths"])
                array = [x.tobytes() for x in np.split(array, ends[:-1])]
            requests.setdefault(signature, {})[name] = tf.constant(array)
    return requests


if __name__ == "__main__":
    main(*sys.argv[1:])
