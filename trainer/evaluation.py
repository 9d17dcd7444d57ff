"""How well each model predicted samples that it had not yet learnt.

Every prediction is recorded before the step that learns its sample, for all models on the same
rows, so the figures of two models differ by the models alone. The newest rows are kept in a ring
of fixed size, as arrays that go into the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

FloatArray = NDArray[np.float32]
State = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one model over some rows; None where the rows do not define it.

    Attributes:
        rows: how many rows.
        positives: how many of them were clicked.
        auc: area under the ROC curve, over all pairs of rows.
        logloss: mean of −log p(label), natural logarithm.
        calibration: sum of predicted probabilities over the number of positives.
        gauc: AUC inside each user, mean over users with both labels, weighted by their rows.
    """

    rows: int
    positives: int
    auc: float | None
    logloss: float | None
    calibration: float | None
    gauc: float | None

    def to_json(self) -> dict[str, float | int | None]:
        """A form that JSON can hold."""
        return asdict(self)


def figures(logits: FloatArray, labels: NDArray[np.uint8], users: NDArray[np.uint64]) -> Figures:
    """Figures of predicted logits [n] against labels 0/1 [n], users given as codes [n].

    >>> z, y = np.array([2, 1, 0, -1], np.float32), np.array([1, 0, 1, 0], np.uint8)
    >>> f = figures(z, y, users=np.array([1, 1, 2, 2], np.uint64))
    >>> f.auc, f.gauc, round(f.logloss, 4), round(f.calibration, 4)
    (0.75, 1.0, 0.6116, 1.1904)
    """
    n = len(labels)
    positives = int(labels.sum())
    if n == 0:
        return Figures(0, 0, None, None, None, None)
    z = logits.astype(np.float64)
    y = labels.astype(np.float64)
    # log(1 + e^z) − y z, without overflow
    logloss = float(np.mean(np.logaddexp(0.0, z) - y * z))
    return Figures(
        rows=n,
        positives=positives,
        auc=_auc(z, labels, positives),
        logloss=logloss,
        calibration=float(expit(z).sum() / positives) if positives else None,
        gauc=_gauc(z, labels, users),
    )


def _auc(z: NDArray[np.float64], labels: NDArray[np.uint8], positives: int) -> float | None:
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(z)  # ties share their mean rank: half a point a tied pair
    above = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _gauc(
    z: NDArray[np.float64], labels: NDArray[np.uint8], users: NDArray[np.uint64]
) -> float | None:
    order = np.lexsort((z, users))
    z, y = z[order], labels[order].astype(np.float64)
    new_user = np.append(True, users[order][1:] != users[order][:-1])  # [n]
    user = np.cumsum(new_user) - 1
    start = np.flatnonzero(new_user)  # [U]
    size = np.diff(np.append(start, len(y)))
    # mean rank of each run of ties inside a user
    new_run = new_user | np.append(True, z[1:] != z[:-1])
    run = np.cumsum(new_run) - 1
    run_start = np.flatnonzero(new_run)
    run_end = np.append(run_start[1:], len(y))  # exclusive
    rank = (run_start + run_end - 1)[run] / 2 - start[user] + 1
    positives = np.bincount(user, weights=y)
    negatives = size - positives
    above = np.bincount(user, weights=rank * y) - positives * (positives + 1) / 2
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return None
    auc = above[both] / (positives[both] * negatives[both])
    return float(np.average(auc, weights=size[both]))


def user_code(user_id: str) -> int:
    """A 64-bit code that is the same in every process (Python's own hash is not)."""
    return int.from_bytes(blake2b(user_id.encode(), digest_size=8).digest(), "little")


class Evaluation:
    """The newest ``capacity`` rows of predictions of several models.

    Args:
        models: their names, in the order of the columns that :meth:`record` is given.
        capacity: rows kept.
        window: rows of the sliding window (the newest ones).

    Attributes:
        recorded: rows recorded since the beginning, also those no longer kept.
    """

    def __init__(self, models: Sequence[str], capacity: int, window: int) -> None:
        self.models = tuple(models)
        self._capacity = capacity
        self._window = min(window, capacity)
        self.recorded = 0
        self._written = 0  # rows written to the ring since it was allocated: its next place
        self._allocate(min(capacity, 1024))

    def _allocate(self, rows: int) -> None:
        self._logits = np.zeros((rows, len(self.models)), np.float32)
        self._labels = np.zeros(rows, np.uint8)
        self._users = np.zeros(rows, np.uint64)

    @property
    def kept(self) -> int:
        """Rows that figures over all rows are made of."""
        return min(self._written, self._capacity)

    def record(
        self,
        logits: Mapping[str, FloatArray],
        labels: NDArray[np.uint8],
        users: Sequence[str],
    ) -> None:
        """Keep the predictions of one batch: a logit array [B] for each model, labels [B]."""
        columns = np.stack([logits[m] for m in self.models], axis=1)
        codes = np.fromiter((user_code(u) for u in users), np.uint64, len(users))
        end = self._written + len(labels)
        while len(self._labels) < min(end, self._capacity):
            self._grow()
        at = np.arange(self._written, end) % self._capacity
        self._logits[at] = columns
        self._labels[at] = labels
        self._users[at] = codes
        self._written = end
        self.recorded += len(labels)

    def _grow(self) -> None:
        old = self._logits, self._labels, self._users
        self._allocate(min(2 * len(old[1]), self._capacity))
        n = len(old[1])
        self._logits[:n], self._labels[:n], self._users[:n] = old

    def _newest(self, rows: int) -> NDArray[np.int64]:
        """Places in the ring of the newest rows, oldest first."""
        rows = min(rows, self.kept)
        return np.arange(self._written - rows, self._written) % self._capacity

    def over_all(self) -> dict[str, Figures]:
        """Figures of every model over all rows kept."""
        return self._figures(self._newest(self._capacity))

    def over_window(self) -> dict[str, Figures]:
        """Figures of every model over the sliding window."""
        return self._figures(self._newest(self._window))

    def _figures(self, at: NDArray[np.int64]) -> dict[str, Figures]:
        labels, users = self._labels[at], self._users[at]
        return {
            name: figures(self._logits[at, i], labels, users) for i, name in enumerate(self.models)
        }

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The rows kept, oldest first, for the checkpoint."""
        at = self._newest(self._capacity)
        return {
            "recorded": np.array([self.recorded], np.int64),
            "logits": self._logits[at],
            "labels": self._labels[at],
            "users": self._users[at],
        }

    def load_state(self, state: State) -> None:
        """The inverse of :meth:`state`; under a smaller capacity the newest rows stay."""
        labels = state["labels"][-self._capacity :]
        n = len(labels)
        self.recorded = int(state["recorded"][0])
        self._written = n
        self._allocate(max(n, 1))
        self._logits[:n] = state["logits"][-self._capacity :]
        self._labels[:n] = labels
        self._users[:n] = state["users"][-self._capacity :]
