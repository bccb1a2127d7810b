import numpy as np
import pytest

from tlkit.errors import DataError
from tlkit.tasks import Classification, classification, task_from_config


@pytest.mark.parametrize(
    "labels, message",
    [(["a"], "at least two"), (["a", "b", "a"], "Duplicates: .'a'"), ("ab", "one str")],
)
def test_labels_are_checked(labels, message):
    with pytest.raises(DataError, match=message):
        classification(labels)


def test_a_number_of_labels_gives_them_names():
    assert classification(3).labels == ("0", "1", "2")


def test_answers_and_scores_agree():
    task = Classification(("cat", "dog"))
    logits = np.array([[0.0, np.log(3.0)], [1000.0, -1000.0]], np.float32)
    np.testing.assert_allclose(task.scores(logits), [[0.25, 0.75], [1, 0]], rtol=1e-6)
    answer = {name: tensor.numpy() for name, tensor in task.answer(logits).items()}
    assert answer["label"].tolist() == [b"dog", b"cat"]
    np.testing.assert_allclose(answer["score"], [0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(answer["scores"], task.scores(logits), rtol=1e-6)
    assert answer["labels"].tolist() == [[b"cat", b"dog"]] * 2


def test_tasks_come_back_from_their_config():
    task = Classification(("cat", "dog"))
    assert task_from_config(task.to_config()) == task
    assert task.label_index("dog") == 1
    with pytest.raises(DataError, match="no label 'cow'.*cat, dog"):
        task.label_index("cow")
    with pytest.raises(DataError, match="'sorting' is unknown"):
        task_from_config({"task": "sorting"})
