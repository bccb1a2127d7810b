"""A script that calls an export's signatures with nothing but TensorFlow.

    python -P standalone_predictions.py FOLDER REQUESTS.npz RESPONSES.npz

`parity_check` runs it in a separate process, to show that a server without `tlkit`
predicts the same. It must not import anything of `tlkit`.

Arrays of `REQUESTS.npz` are named `signature|input`. Strings are two arrays,
`signature|input|bytes` (all of them concatenated, uint8) and `signature|input|lengths`,
since NumPy's own strings lose trailing zeros. Arrays of `RESPONSES.npz` are named
`signature|output`.

Tested in tests/serving/test_parity_check.py.
"""

import sys

import numpy as np
import tensorflow as tf


def main(folder: str, requests_path: str, responses_path: str) -> None:
    """Loads an export, calls its signatures and writes their outputs."""
    served = _load(folder)
    arrays = {}
    for signature, inputs in _requests(requests_path).items():
        for name, tensor in served.signatures[signature](**inputs).items():
            array = tensor.numpy()
            if tensor.dtype == tf.string:  # an array of objects would be pickled
                array = array.astype(np.bytes_)
            arrays[f"{signature}|{name}"] = array
    if "tlkit" in sys.modules:
        raise SystemExit("tlkit was imported, so the check proves nothing")
    np.savez(responses_path, **arrays)


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
            signature, name, *suffix = key.split("|")
            if suffix == ["lengths"]:
                continue
            array = arrays[key]
            if suffix == ["bytes"]:
                ends = np.cumsum(arrays[f"{signature}|{name}|lengths"])
                array = [x.tobytes() for x in np.split(array, ends[:-1])]
            requests.setdefault(signature, {})[name] = tf.constant(array)
    return requests


if __name__ == "__main__":
    main(*sys.argv[1:])
