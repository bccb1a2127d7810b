"""The sample data sets as splits, ready for `tlkit.fit`."""

from __future__ import annotations

from ..data import Splits
from ..data.loaders import arrays
from .datasets import Texts, data


def splits(
    name: str,
    *,
    validation: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    verbose: int = 1,
) -> Splits:
    """Gives a small real data set as splits.

    Args:
        name: As for `tlkit.samples.data`.
        validation: Size of the validation split, taken from the training examples: a
            share in [0, 1) or a number of examples.
        test: Size of the test split of a data set that has none of its own
            (`"mnist-5k"`), likewise. The texts keep their standard test split.
        seed: Decides the splits.
        verbose: 0 is silent, 1 says what is fetched.

    Returns:
        The splits, stratified.

    Raises:
        SourceError: There is no such data set, or it could not be fetched.

    Example:

    ```python
    splits = tlkit.samples.splits("reuters-r8")
    print(splits.sizes)  # {'train': 4937, 'validation': 548, 'test': 2189}
    ```
    """
    found = data(name, verbose=verbose)
    if isinstance(found, Texts):
        return arrays(
            found.train_texts,
            found.train_labels,
            validation=validation,
            test_data=(found.test_texts, found.test_labels),
            labels=tuple(sorted(set(found.train_labels))),
            seed=seed,
        )
    return arrays(
        found.images, found.labels, validation=validation, test=test, seed=seed
    )
