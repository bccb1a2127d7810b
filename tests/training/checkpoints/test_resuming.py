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
    """Breaks off after so many updates; or in the validation that follows them."""

    def __init__(self, updates, *, in_validation=False):
        super().__init__()
        self.updates, self.in_validation = updates, in_validation

    def on_train_batch_end(self, batch, logs=None):
        self._stop_there(not self.in_validation)

    def on_test_begin(self, logs=None):
        self._stop_there(self.in_validation)

    def _stop_there(self, here):
        if here and int(self.model.optimizer.iterations) == self.updates:
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


def test_a_run_that_is_stopped_everywhere_ends_as_an_undisturbed_one(
    image_encoder, tmp_path
):
    expected, whole = run(image_encoder)
    # Before the first checkpoint, and in the middle of each phase, a checkpoint and a
    # half behind; in the validation that ends a phase, with a checkpoint just before.
    head, one, _ = (5 * phase.epochs for phase in whole.phases)
    stops = [1, head - 8, (head,), head + 3, (head + one,), head + one + 2]
    for number, stop in enumerate(stops):
        in_validation = isinstance(stop, tuple)
        options = {"checkpoints": Checkpoints(steps=1)} if in_validation else {}
        with pytest.raises(RuntimeError, match="stopped"):
            run(
                image_encoder,
                tmp_path,
                stop_at=stop[0] if in_validation else stop,
                in_validation=in_validation,
                resume=number > 0,
                **options,
            )
    weights, report = run(image_encoder, tmp_path, resume=True)
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert report.history == whole.history
    assert [p.epochs for p in report.phases] == [p.epochs for p in whole.phases]


def test_a_finished_run_comes_back_and_may_be_replaced(image_encoder, tmp_path):
    options = {
        "schedule": [Phase("head", epochs=4)],
        "checkpoints": Checkpoints(steps=3, keep=3),
    }
    first, report = run(image_encoder, tmp_path, **options)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
    again, other = run(image_encoder, tmp_path, resume=True, **options)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.history == report.history
    run(image_encoder, tmp_path, schedule=[Phase("head")])  # anew


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
def test_ten_kills_cost_nothing(image_encoder, tmp_path):
    dice = random.Random(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _, said = (job := start(image_encoder, whole)).communicate()
    assert job.returncode == 0, said[-3000:]
    inside, newest = 0, 0
    for kill in range(10):
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
    print(f"{inside} of 10 kills fell into a checkpoint's write")
    assert inside >= 3
    for one, other in zip(weights_in(broken), weights_in(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def launch(encoder, directory):
    job = [str(JOB), str(encoder), str(directory), "3", "multi_worker"]
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
    wait_for_checkpoint(job, broken, 15)  # in the second phase of 36 updates
    workers = psutil.Process(job.pid).children()
    victim = next(
        w for w in workers if '"index": 1' in w.environ().get("TF_CONFIG", "")
    )
    victim.kill()
    _, said = job.communicate(timeout=600)  # nobody hangs
    assert job.returncode == 0, said[-3000:]
    for one, other in zip(weights_in(broken), weights_in(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
