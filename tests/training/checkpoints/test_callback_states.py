"""Callbacks of a resumed run continue from their states."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import make_plain_model
from tlkit.errors import TrainingError
from tlkit.training.checkpoints import checkpoint_files as checkpoints
from tlkit.training.checkpoints.callback_states import CallbackStates
from tlkit.training.checkpoints.checkpoint_files import CheckpointWarning


class Run:
    """Calls callbacks as Keras's `fit` does, with figures that are given."""

    def __init__(self, *callbacks):
        self.model = make_plain_model()
        self.model.compile(keras.optimizers.SGD(0.1))
        self.list = keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            model=self.model,
            epochs=9,
            steps=1,
            verbose=0,
        )
        self.states = CallbackStates(self.list.callbacks)

    def begin(self):
        self.model.stop_training = False
        self.list.on_train_begin()
        return self

    def epochs(self, figures, first=0):
        for epoch, figure in enumerate(figures, start=first):
            self.list.on_epoch_begin(epoch)
            self.list.on_train_batch_begin(0)
            self.list.on_train_batch_end(0, {"loss": figure})
            self.list.on_epoch_end(epoch, {"loss": figure, "val_loss": figure + 1})
            if self.model.stop_training:
                break
        return self


@pytest.fixture
def through_disk(tmp_path):
    """Takes the state of one run to another, through a file."""

    def transfer(one, other):
        checkpoints.write(tmp_path, 1, {}, {"callbacks": one.states.collect()}, keep=1)
        other.states.restore(checkpoints.latest(tmp_path).state["callbacks"])
        return other

    return transfer


FIGURES = [5.0, 4.0, 4.5, 4.2, 4.4, 4.3, 3.0]


def keras_callbacks(folder):
    return [
        keras.callbacks.EarlyStopping("loss", 0.01, 4, restore_best_weights=True),
        keras.callbacks.EarlyStopping("val_loss", patience=9),
        keras.callbacks.ReduceLROnPlateau("loss", 0.5, 2, cooldown=1, min_delta=0.01),
        keras.callbacks.ModelCheckpoint(
            folder / "best.weights.h5",
            monitor="loss",
            save_best_only=True,
            save_weights_only=True,
        ),
        keras.callbacks.ProgbarLogger(),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    ]


@pytest.mark.parametrize("done", range(6))
def test_callbacks_of_keras_continue(done, tmp_path, through_disk):
    undisturbed = Run(*keras_callbacks(tmp_path / "a")).begin().epochs(FIGURES)
    one = Run(*keras_callbacks(tmp_path / "b")).begin().epochs(FIGURES[:done])
    other = through_disk(one, Run(*keras_callbacks(tmp_path / "c")).begin())
    other.model.optimizer.learning_rate = one.model.optimizer.learning_rate.numpy()
    other.epochs(FIGURES[done:], first=done)

    names = {
        0: ["best", "wait", "best_epoch", "stopped_epoch", "min_delta", "patience"],
        1: ["best", "wait", "best_epoch", "stopped_epoch"],
        2: ["best", "wait", "cooldown_counter", "min_delta"],
        3: ["best", "_current_epoch", "_last_batch_seen"],
        7: ["history", "epoch"],
    }
    for place, wanted in names.items():
        before, after = undisturbed.list.callbacks[place], other.list.callbacks[place]
        for name in wanted:
            assert getattr(after, name) == getattr(before, name), name
    assert other.list.callbacks[0].stopped_epoch == 5
    assert undisturbed.model.history.epoch == [0, 1, 2, 3, 4, 5]
    rates = [float(run.model.optimizer.learning_rate) for run in (undisturbed, other)]
    assert rates[0] == rates[1] < 0.1


def test_tensorboard_continues(tmp_path, through_disk):
    pytest.importorskip("tensorboard")

    def make(folder, **options):
        options |= {"update_freq": 1, "write_steps_per_second": True}
        return Run(keras.callbacks.TensorBoard(tmp_path / folder, **options)).begin()

    one = make("a", profile_batch=1).epochs(FIGURES[:2])
    other = through_disk(one, make("b")).epochs(FIGURES[2:5], first=2)
    board = other.list.callbacks[0]
    assert board._global_train_batch == 5
    assert not board._profiler_started
    # What the user typed for this run holds in it.
    assert board._train_dir == str(tmp_path / "b" / "train")
    for run in (other, one):  # writers are a stack
        run.list.on_train_end()
    assert any((tmp_path / "b" / "train").iterdir())


def test_the_best_weights_come_back(tmp_path, through_disk):
    def make():
        stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
        return Run(stop)

    one = make().begin().epochs([3.0])
    best = one.model.get_weights()
    one.model.set_weights([w + 1 for w in best])
    other = through_disk(one, make().begin())
    other.model.set_weights([w * 0 for w in best])
    other.epochs([4.0], first=1)
    other.list.on_train_end()
    for now, then in zip(other.model.get_weights(), best, strict=True):
        np.testing.assert_array_equal(now, then)


def test_what_is_typed_anew_holds(through_disk):
    def make(patience):
        return Run(keras.callbacks.EarlyStopping("loss", patience=patience)).begin()

    one = make(3).epochs([1.0, 2.0, 2.0])
    other = through_disk(one, make(5))
    stop = other.list.callbacks[0]
    assert (stop.patience, stop.wait, stop.best) == (5, 2, 1.0)
    other.epochs([2.0] * 9, first=3)
    assert stop.stopped_epoch == 5


class Annealing(keras.callbacks.Callback):
    """Has much of its own, some of it changed, some of it not plain."""

    def __init__(self, temperature=1.0, seen=None, name="warm"):
        super().__init__()
        self.temperature = temperature
        self.seen = [] if seen is None else seen
        self.label = f"{name}!"
        self.by_epoch = {}
        self.running = np.zeros(2, np.float32)
        self.tensor = tf.constant(0.0)
        self.variable = tf.Variable(0.0)
        self.file = None

    def on_epoch_end(self, epoch, logs=None):
        self.temperature *= 0.5
        self.seen.append((epoch, logs["loss"]))
        self.by_epoch[epoch] = float("nan")
        self.running += logs["loss"]
        self.tensor = self.tensor + 1.0
        self.variable.assign_add(1.0)
        self.file = open  # as good as an open file


def test_callbacks_of_users_continue(through_disk):
    seen = []
    one = Run(Annealing(name="cold")).begin().epochs([3.0, 2.0])
    other = through_disk(one, Run(Annealing(seen=seen)).begin())
    found = other.list.callbacks[0]
    assert found.temperature == 0.25
    assert found.seen is seen
    assert seen == [(0, 3.0), (1, 2.0)]
    assert found.by_epoch.keys() == {0, 1}
    assert np.isnan(found.by_epoch[1])
    np.testing.assert_array_equal(found.running, np.float32([5, 5]))
    assert found.running.dtype == np.float32
    assert float(found.tensor) == 2.0
    assert isinstance(found.variable, tf.Variable)
    assert found.label == "warm!"
    assert found.file is None


def test_an_argument_that_moved_comes_back_unless_it_is_typed_anew(through_disk):
    one = Run(Annealing(temperature=8.0)).begin().epochs([1.0] * 2)
    same = through_disk(one, Run(Annealing(temperature=8.0)).begin())
    assert same.list.callbacks[0].temperature == 2.0
    anew = through_disk(one, Run(Annealing(temperature=9.0)).begin())
    assert anew.list.callbacks[0].temperature == 9.0
    # A second resume, of a run that was resumed itself.
    again = through_disk(same, Run(Annealing(temperature=8.0)).begin())
    assert again.list.callbacks[0].temperature == 2.0


class Speaking(keras.callbacks.Callback):
    def __init__(self, state=None):
        super().__init__()
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = ("set", state)


def test_a_callback_may_define_its_state(through_disk):
    state = {"list": [1, (2.5, None)], 7: np.arange(3)}
    other = through_disk(Run(Speaking(state)), Run(Speaking()))
    word, found = other.list.callbacks[0].state
    assert word == "set"
    assert found["list"] == state["list"]
    np.testing.assert_array_equal(found[7], np.arange(3))
    with pytest.raises(
        TrainingError, match="callback Speaking must return plain values"
    ):
        Run(Speaking({1, 2})).states.collect()


def test_another_list_of_callbacks(through_disk):
    def stop(monitor, **options):
        return keras.callbacks.EarlyStopping(monitor, patience=9, **options)

    one = Run(stop("loss"), Annealing(), stop("val_loss"), keras.callbacks.Callback())
    one.begin().epochs([1.0, 2.0])
    recorder = Annealing(temperature=3.0)
    other = Run(stop("val_loss"), stop("acc")).begin()
    with pytest.warns(CheckpointWarning, match="EarlyStopping of loss, Annealing"):
        through_disk(one, other)
    assert [c.best for c in other.list.callbacks[:2]] == [2.0, None]
    assert [c.wait for c in other.list.callbacks[:2]] == [1, 0]

    # A new callback starts without a warning, as does a missing one without state.
    more = Run(stop("val_loss"), recorder, stop("loss"), Annealing()).begin()
    through_disk(one, more)
    assert recorder.temperature == 3.0  # typed anew
    assert recorder.seen == [(0, 1.0), (1, 2.0)]
    assert more.list.callbacks[3].seen == []
    assert [more.list.callbacks[k].best for k in (0, 2)] == [2.0, 1.0]


def test_a_log_file_is_continued(tmp_path, through_disk):
    log = tmp_path / "log.csv"
    one = Run(keras.callbacks.CSVLogger(log)).begin().epochs([3.0, 2.0])
    one.list.callbacks[0].csv_file.close()  # as a killed process does
    other = Run(keras.callbacks.CSVLogger(log))
    other.states.append_to_files()
    through_disk(one, other.begin()).epochs([1.0], first=2)
    other.list.on_train_end()
    assert log.read_text().split() == [
        "epoch,loss,val_loss",
        "0,3.0,4.0",
        "1,2.0,3.0",
        "2,1.0,2.0",
    ]
