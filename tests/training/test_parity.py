"""A hundred drawn trainings have the weights and the history of Keras's `fit`."""

from tests.training.parity import outcomes

CASES = 100


def test_drawn_cases_are_equal_or_refused_for_a_listed_reason(without_grappler):
    numbers, failures = outcomes(CASES, seed=1)
    assert not failures, "\n\n".join(failures[:3])
    assert numbers["equal"] >= 0.7 * CASES, numbers  # others, Keras cannot train
