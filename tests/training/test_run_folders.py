"""The folder of a run is one folder, whatever happens to the working directory."""

import os

import keras

import tlkit
from tests.training.conftest import make_plain_model
from tlkit.training import Phase, fit


def test_a_run_in_the_home_folder_stays_there(numbers, tmp_path, monkeypatch):
    home, start, other = (tmp_path / name for name in ("home", "start", "other"))
    for folder in (home, start, other):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(start)

    def train(directory, **options):
        model = make_plain_model()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
        leave = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_: os.chdir(other),
            on_train_end=lambda *_: os.chdir(start),
        )
        phase = Phase("all", epochs=1, learning_rate=0.1)
        callbacks = [leave]
        options |= {"schedule": phase, "callbacks": callbacks, "verbose": 0}
        return fit(model, *numbers, directory=directory, **options)

    report = train("~/runs/1")
    names = ["checkpoints", "plan.txt", "report.json"]
    assert sorted(path.name for path in (home / "runs" / "1").iterdir()) == names
    assert not any(start.iterdir()) and not any(other.iterdir())
    assert tlkit.reports.Report.load("~/runs/1").history == report.history
    assert tlkit.ActivationCache("disk", directory="~/cache").folder == home / "cache"
    os.chdir(home / "runs")
    resumed = train("1", resume=True)  # the same folder: nothing is left to train
    assert resumed.history == report.history
