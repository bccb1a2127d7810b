"""Calls an export through TensorFlow's C API, in a C program without Python."""

import pathlib
import shutil
import struct
import subprocess

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

SOURCE = pathlib.Path(__file__).with_name("serve.c")


def has_compiler():
    return shutil.which("cc") is not None


def build(folder):
    """Compiles the client against the libraries that TensorFlow's wheel brings."""
    library = pathlib.Path(tf.sysconfig.get_lib())
    program = folder / "serve"
    command = ["cc", "-O1", "-o", program, SOURCE, f"-I{tf.sysconfig.get_include()}"]
    command += [f"-L{library}", f"-Wl,-rpath,{library}", "-l:libtensorflow_cc.so.2"]
    command += ["-l:libtensorflow_framework.so.2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def text_libraries():
    """Returns the libraries with TF Text's ops without importing it."""
    import importlib.util

    places = importlib.util.find_spec("tensorflow_text").submodule_search_locations
    return sorted(pathlib.Path(places[0], "python", "ops").glob("_*.so"))


def ask(program, export, examples, name, *, libraries=(), signature="serving_default"):
    """Returns the labels and scores, float32 [n, labels], of a signature."""
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((export / "saved_model.pb").read_bytes())
    found = model.meta_graphs[0].signature_def[signature]
    tensors = [found.inputs[name], found.outputs["label"], found.outputs["scores"]]
    request = program.with_name("request")
    packed = (struct.pack("<Q", len(x)) + x for x in examples)
    request.write_bytes(b"".join(packed))
    done = subprocess.run(
        [program, export, request, *(t.name for t in tensors), *libraries],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    scores = [[float.fromhex(x) for x in line[1].split()] for line in lines]
    return [line[0] for line in lines], np.array(scores, np.float32)
