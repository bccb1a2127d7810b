"""The contract with Keras code: all public names, and what is refused."""

import keras
import numpy as np
import pytest

from tlkit.errors import TrainingError
from tlkit.training import fit
from tlkit.training.keras_contract import CALLED, REFUSED, UNUSED


@pytest.mark.parametrize("base", list(CALLED))
def test_every_public_name_is_in_one_table(base):
    tables = [set(table[base]) for table in (CALLED, REFUSED, UNUSED)]
    public = {n for n in dir(base) if n == "__call__" or not n.startswith("_")}
    assert set.union(*tables) >= public  # older releases of Keras have fewer
    assert sum(map(len, tables)) == len(set.union(*tables))


def model_with(name, method):
    kind = type("Mine", (keras.Sequential,), {name: method})
    return kind([keras.Input((2,)), keras.layers.Dense(1)])


def own(self, *args, **kwargs):
    raise AssertionError("it was called")


X, Y = np.zeros((4, 2), "float32"), np.zeros((4, 1), "float32")


@pytest.mark.parametrize("name", list(REFUSED[keras.Model]))
def test_an_overridden_method_that_would_not_be_called_is_refused(name):
    with pytest.raises(TrainingError, match=f"Mine.{name} is overridden"):
        fit(model_with(name, own), X, Y, loss="mse", verbose=0)


def test_a_method_of_one_object_is_an_override_too():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.train_step = lambda data: {}
    with pytest.raises(TrainingError, match="train_step is overridden"):
        fit(model, X, Y, loss="mse", verbose=0)


def test_an_overridden_compile_is_the_users_to_call():
    model = model_with("compile", own)
    with pytest.raises(TrainingError, match="without loss and metrics"):
        fit(model, X, Y, loss="mse", verbose=0)


@pytest.mark.parametrize(
    "callback, words",
    [
        (keras.callbacks.BackupAndRestore("backup"), "resume=True"),
        (print, "must be Keras callbacks"),
    ],
)
def test_a_callback_that_cannot_work_is_refused(callback, words):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(TrainingError, match=words):
        fit(model, X, Y, loss="mse", callbacks=callback, verbose=0)
