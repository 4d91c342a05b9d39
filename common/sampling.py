"""Which rows an epoch of training sees, and how often, where classes are not equally frequent."""

import numpy as np

SAMPLINGS = ("shuffled", "oversampled", "balanced")


def oversample_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Repeat rows of rarer classes until all classes are equally frequent; shuffle them all.

    Parameters
    ----------
    labels
        Class number of each row, shape (rows,).

    Returns
    -------
    np.ndarray
        Row numbers. Each row stands there at least once, and rows of one class differ by one
        in how often they do.
    """
    classes, counts = np.unique(labels, return_counts=True)
    drawn = [_draw_rounds(labels, kind, counts.max(), rng) for kind in classes]
    return rng.permutation(np.concatenate(drawn))


def balance_rows(labels: np.ndarray, rng: np.random.Generator, *, batch_size: int) -> np.ndarray:
    """Fill as many batches as the rows would fill, each evenly with all classes.

    Where the batch size is no multiple of the number of classes, some classes, drawn anew for
    each batch, have one row more in it. A class begins anew once all its rows were drawn.

    Parameters
    ----------
    labels
        Class number of each row, shape (rows,).

    Returns
    -------
    np.ndarray
        Row numbers, one batch after the other.
    """
    classes = np.unique(labels)
    batch_size = min(batch_size, len(labels))
    each, more = divmod(batch_size, len(classes))
    kinds = np.concatenate(
        [
            np.concatenate([np.repeat(classes, each), rng.permutation(classes)[:more]])
            for _ in range(len(labels) // batch_size)
        ]
    )
    order = np.empty(len(kinds), dtype=int)
    for kind in classes:
        places = np.flatnonzero(kinds == kind)
        order[places] = _draw_rounds(labels, kind, len(places), rng)
    return order


def _draw_rounds(labels: np.ndarray, kind: int, count: int, rng: np.random.Generator):
    """Draw `count` rows of a class, none again before all were drawn."""
    members = np.flatnonzero(labels == kind)
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([members[:0], *rounds])[:count]
