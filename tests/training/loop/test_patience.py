"""A phase ends when its loss stops improving, with the weights of its best epoch."""

import keras
import pytest

from tlkit.training.loop.patience import Patience


def train(patience, variable, losses):
    """Returns the number of epochs that were trained; each assigns its number."""
    for epoch, loss in enumerate(losses, start=1):
        variable.assign(epoch)
        if patience.is_exhausted({"loss": 9.0, "val_loss": loss}):
            return epoch
    return len(losses)


@pytest.mark.parametrize(
    "epochs, losses, trained, best",
    [
        (2, [5.0, 3.0, 4.0, 3.0, 1.0], 4, 2),
        (2, [5.0, 3.0, 4.0, 2.0], 4, 4),
        (None, [5.0, 6.0, 7.0], 3, 3),
    ],
)
def test_patience_counts_epochs_without_a_lower_loss(epochs, losses, trained, best):
    variable = keras.Variable(0.0)
    patience = Patience(epochs, [variable])
    assert train(patience, variable, losses) == trained
    patience.restore_best()
    assert float(variable) == best


def test_patience_continues_from_its_state():
    variable = keras.Variable(0.0)
    first, second = (Patience(2, [variable]) for _ in "ab")
    train(first, variable, [3.0, 4.0])
    second.set_state(*first.state())
    assert second.is_exhausted({"loss": 4.0})
    second.restore_best()
    assert float(variable) == 1
