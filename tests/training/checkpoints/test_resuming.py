"""A run that was stopped is resumed as if it had not been."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import psutil
import pytest

import tlkit
from tests import forked
from tlkit.errors import TrainingError
from tlkit.training import Checkpoints, Phase, fit

JOB = pathlib.Path(__file__).parent / "killed_job.py"
LABELS = ["a", "b", "c"]
SCHEDULE = [
    Phase("head", epochs=5, learning_rate=1e-2, patience=2),
    Phase(1, epochs=3, learning_rate=1e-2),
    Phase("all", epochs=2, batch_norm="train", l2_sp=0.1, layer_decay=0.5),
]


class StopAt(keras.callbacks.Callback):
    """Breaks off after so many calls, or before so many validations."""

    def __init__(self, calls, *, in_validation=False):
        super().__init__()
        self.left, self.in_validation = calls, in_validation

    def on_train_batch_end(self, batch, logs=None):
        self._count(not self.in_validation)

    def on_test_begin(self, logs=None):
        self._count(self.in_validation)

    def _count(self, counts):
        self.left -= counts
        if counts and not self.left:
            raise RuntimeError("stopped")

    def get_state(self):  # not of the run: each has a number of its own
        return {}

    def set_state(self, state):
        pass


def run(encoder, directory=None, *, stop_at=0, in_validation=False, **options):
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 255, (37, 8, 8, 3)).astype("uint8"), np.arange(37) % 3
    model = tlkit.image_classifier(encoder, LABELS, image_size=8, dropout=0.2)
    steps = {} if directory is None else {"checkpoints": Checkpoints(steps=3)}
    report = fit(
        model,
        x,
        y,
        validation_data=(x[:9], y[:9]),
        batch_size=4,
        callbacks=[
            StopAt(stop_at, in_validation=in_validation),
            keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5),
        ],
        gradient_accumulation_steps=2,
        ema=0.9,
        directory=directory,
        verbose=0,
        **({"schedule": SCHEDULE} | steps | options),
    )
    return model.get_weights(), report


@pytest.fixture(scope="module")
def undisturbed(image_encoder):
    return run(image_encoder)


# Updates: 5 in an epoch, 25 in the head's phase, 15 in the next.
@pytest.mark.parametrize("stop_at", [1, 17, 28, 42])
def test_the_weights_and_the_history_are_those_of_an_undisturbed_run(
    image_encoder, undisturbed, tmp_path, stop_at
):
    with pytest.raises(RuntimeError, match="stopped"):
        run(image_encoder, tmp_path, stop_at=stop_at)
    weights, report = run(image_encoder, tmp_path, resume=True)
    expected, whole = undisturbed
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert report.history == whole.history
    assert [p.epochs for p in report.phases] == [p.epochs for p in whole.phases]


@pytest.mark.parametrize("validation", [5, 8])  # the last of the first two phases
def test_the_end_of_an_epoch_is_not_skipped(
    image_encoder, undisturbed, tmp_path, validation
):
    options = {"checkpoints": Checkpoints(steps=1)}
    with pytest.raises(RuntimeError, match="stopped"):
        run(image_encoder, tmp_path, stop_at=validation, in_validation=True, **options)
    weights, report = run(image_encoder, tmp_path, resume=True, **options)
    expected, whole = undisturbed
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert report.history == whole.history


def test_a_finished_run_comes_back_and_may_be_replaced(image_encoder, tmp_path):
    schedule = [Phase("head", epochs=2)]
    first, report = run(image_encoder, tmp_path, schedule=schedule)
    again, other = run(image_encoder, tmp_path, schedule=schedule, resume=True)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.history == report.history
    run(image_encoder, tmp_path, schedule=schedule)  # anew


def test_an_unfinished_run_is_not_lost_to_another(image_encoder, tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        run(image_encoder, tmp_path, stop_at=7)
    plan = (tmp_path / "plan.txt").read_text()
    with pytest.raises(TrainingError, match="resume=True"):
        run(image_encoder, tmp_path)
    with pytest.raises(TrainingError, match="3 phases, now 1"):
        run(image_encoder, tmp_path, resume=True, schedule=[Phase("head", epochs=9)])
    assert (tmp_path / "plan.txt").read_text() == plan
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_resume_and_checkpoints_need_a_directory(image_encoder):
    with pytest.raises(TrainingError, match="directory"):
        run(image_encoder, resume=True)
    with pytest.raises(TrainingError, match="directory"):
        run(image_encoder, checkpoints=Checkpoints(minutes=1))
    with pytest.raises(TrainingError, match="checkpoints must be .* got None. Type"):
        run(image_encoder, checkpoints=None)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": 0}, "steps of Checkpoints must be an integer of 1 or more; got 0"),
        ({"keep": None}, "keep of Checkpoints must be an integer of 1 or more"),
        ({"minutes": 0}, "minutes of Checkpoints must be above 0, or None; got 0"),
    ],
)
def test_a_wrong_number_of_checkpoints_is_an_error(options, words):
    with pytest.raises(TrainingError, match=words):
        Checkpoints(**options)


def test_only_the_last_checkpoints_are_kept(image_encoder, tmp_path):
    schedule = [Phase("head", epochs=4)]
    checkpoints = Checkpoints(steps=3, keep=3)
    run(image_encoder, tmp_path, checkpoints=checkpoints, schedule=schedule)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


# === Processes ===


def start(encoder, directory, epochs=60, **options):
    command = [sys.executable, str(JOB), str(encoder), str(directory), str(epochs)]
    return forked.Popen(
        command,
        cwd=JOB.parents[3],
        env=os.environ | {"PYTHONPATH": str(JOB.parents[3])},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def weights_in(directory):
    with np.load(pathlib.Path(directory) / "weights.npz") as arrays:
        return [arrays[name] for name in arrays.files]


def wait_for_checkpoint(job, directory, beyond):
    """Waits until there is a newer checkpoint than `beyond`; gives its number."""
    while job.poll() is None:
        folder = pathlib.Path(directory) / "checkpoints"
        names = [p.name for p in folder.glob("[0-9]*")] if folder.exists() else []
        newest = max((int(name.split("-")[0]) for name in names), default=0)
        if newest > beyond:
            return newest
        time.sleep(0.01)
    raise AssertionError(f"the job ended: {job.stderr.read()[-2000:]}")


def test_ctrl_c_writes_a_checkpoint_and_leaves(image_encoder, tmp_path):
    job = start(image_encoder, tmp_path)
    wait_for_checkpoint(job, tmp_path, 3)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=300)
    assert job.returncode == -signal.SIGINT or "KeyboardInterrupt" in said
    assert "Interrupted" in said
    saved = tlkit.training.checkpoints.checkpoint_files.latest(tmp_path)
    assert not saved.state["finished"] and saved.state["position"]["updates"] > 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_kills_cost_nothing(image_encoder, tmp_path):
    dice = random.Random(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _, said = (job := start(image_encoder, whole)).communicate()
    assert job.returncode == 0, said[-3000:]
    inside, newest = 0, 0
    for kill in range(20):
        job = start(image_encoder, broken)
        newest = wait_for_checkpoint(job, broken, newest)
        if kill % 2:
            # Into the middle of a write: it is a folder that begins with a dot.
            while not list((broken / "checkpoints").glob(".*")):
                assert job.poll() is None
        else:
            time.sleep(dice.uniform(0, 0.5))
        job.kill()
        job.communicate()
        inside += bool(list((broken / "checkpoints").glob(".*")))
    _, said = (job := start(image_encoder, broken)).communicate()
    assert job.returncode == 0, said[-3000:]
    print(f"{inside} of 20 kills fell into a checkpoint's write")
    assert inside >= 5
    for one, other in zip(weights_in(broken), weights_in(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def launch(encoder, directory):
    job = [str(JOB), str(encoder), str(directory), "10", "multi_worker"]
    return subprocess.Popen(
        [sys.executable, "-m", "tlkit.launch", "--workers", "2", *job],
        cwd=JOB.parents[3],
        env=os.environ | {"PYTHONPATH": str(JOB.parents[3])},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_killed_worker_costs_nothing(image_encoder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _, said = (job := launch(image_encoder, whole)).communicate(timeout=600)
    assert job.returncode == 0, said[-3000:]
    job = launch(image_encoder, broken)
    wait_for_checkpoint(job, broken, 30)
    workers = psutil.Process(job.pid).children()
    victim = next(
        w for w in workers if '"index": 1' in w.environ().get("TF_CONFIG", "")
    )
    victim.kill()
    _, said = job.communicate(timeout=600)  # nobody hangs
    assert job.returncode == 0, said[-3000:]
    for one, other in zip(weights_in(broken), weights_in(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
