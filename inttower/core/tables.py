"""The embedding table of a model: it grows, and it learns by row-wise Adagrad.

Each row holds the D numbers of an embedding, then the id's first-order weight, then E extra
numbers, which a model may ask for and which it gets for the two sides' own ids only. All fields
share one matrix, so that a step gathers, differentiates and updates once, however many fields there
are. Each field has an :class:`~inttower.core.ids.IdTable` that maps its ids to rows, and admits and
evicts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice, pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding

from inttower.core.batch import EMPTY, Batch, FloatArray, IntArray, Layout, RowArray
from inttower.core.gather import NOWHERE, field_means, number
from inttower.core.ids import UNKNOWN, IdTable
from inttower.core.spec import Field
from inttower.errors import SpecError, StaleBatchError

# Standard deviation of first embeddings: small, since a dot product of two must start near 0
_SPREAD = 0.01
# First value of Adagrad's accumulators: a row's first step is at most lr·g/√1e-4, and mostly lr
_INITIAL = 1e-4


class Gathered:
    """The distinct rows of a batch as one leaf of the graph; their gradients are ``leaf.grad``.

    Attributes:
        rows: int64 [r], rows of the table, each once.
        leaf: float32 [r, D + 1 + E], their values.
        fields: float32 [B, m, D] of the user side and of the item side: the mean over each
            field's entries.
        first: float32 [B, m] of both sides, first-order weights of the same entries.
        extra: float32 [B, E] of both sides, the extra numbers of the own id.
    """

    def __init__(
        self,
        rows: Tensor,
        leaf: Tensor,
        fields: tuple[Tensor, Tensor],
        first: tuple[Tensor, Tensor],
        extra: tuple[Tensor, Tensor],
    ) -> None:
        self.rows = rows
        self.leaf = leaf
        self.fields = fields
        self.first = first
        self.extra = extra


class Embeddings:
    """The table of a model.

    Args:
        layout: which fields there are.
        width: D.
        extra: E.
        limit: most ids a field.
        admit_after: sightings before an id gets its row.
        expire_after: sightings of other ids after which an id is evicted; None: never.
        seed: of the first embeddings.
        device: that holds the table.
    """

    def __init__(
        self,
        layout: Layout,
        width: int,
        *,
        extra: int = 0,
        limit: int = 1_000_000,
        admit_after: int = 1,
        expire_after: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.layout = layout
        self.width = width
        self.extra = extra
        # each part of a row has its own accumulator: embedding, first-order weight, extra
        ends = (0, width, width + 1, width + 1 + extra)
        self._parts = [slice(a, b) for a, b in pairwise(ends) if a < b]
        self._own_ids = [layout.row_slice(f.name).start for f in layout.embedded if f.is_id]
        ends_of = np.append(layout.starts, layout.columns)
        users = layout.fields_of("item").start
        self._sides = (ends_of[: users + 1], ends_of[users:])
        self.generation = 0
        self._device = torch.device(device)
        owners = [f for f in layout.embedded if f.kind != "sequence"]
        self.ids = {
            f.name: IdTable(
                limit,
                admit_after if f.is_id else 1,
                expire_after if f.is_id else None,
            )
            for f in owners
        }
        # Row of each slot, by field; the unknown slots take the first rows.
        self._rows: dict[str, IntArray] = {
            f.name: np.array([i], np.int64) for i, f in enumerate(owners)
        }
        self._used = len(owners)
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(self._used, width + 1, generator=generator) * _SPREAD
        first[:, width] = 0
        behind = torch.randn(self._used, extra, generator=generator) * _SPREAD
        self.weight = self._room(torch.cat((first, behind), 1), max(64, self._used))
        self._adagrad = self._accumulators(len(self.weight))
        # how often each row was learnt: the logQ correction of in-batch negatives reads it
        self.learnt: IntArray = np.zeros(len(self.weight), np.int64)
        self._total = 0
        self._place: IntArray = np.full(len(self.weight), NOWHERE)  # scratch of gather
        # the generation at which each row was last taken from its id
        self._taken: IntArray = np.zeros(len(self.weight), np.int64)

    def _room(self, values: Tensor, rows: int) -> Tensor:
        grown = torch.zeros(rows, values.shape[1], device=self._device)
        grown[: len(values)] = values
        return grown

    def _accumulators(self, rows: int) -> Tensor:
        return torch.full((rows, len(self._parts)), _INITIAL, device=self._device)

    @property
    def rows_used(self) -> int:
        """Rows ever used, all fields together."""
        return self._used

    def unknown_row(self, name: str) -> int:
        """The row that unknown ids of this field share."""
        return int(self._rows[name][UNKNOWN])

    # ------------------------------------------------------------------ text to rows

    def encode(self, columns: Mapping[str, object], admit: bool) -> tuple[RowArray, int]:
        """Table rows of all texts, int32 [B, K], and B; see ``Model.encode``."""
        texts = {f.name: self._texts(f, columns) for f in self.layout.embedded}
        if admit:
            for name in self.ids:
                self._admit(name, texts[name][0])
        count = len(next(iter(texts.values()))[1])
        rows = np.full((count, self.layout.columns), EMPTY, np.int32)
        for field in self.layout.embedded:
            flat, lengths = texts[field.name]
            if len(lengths) != count:
                raise SpecError(f"column {field.name!r} has {len(lengths)} rows, others {count}")
            part = rows[:, self.layout.row_slice(field.name)]
            if field.kind == "sparse":
                part[:, 0] = self.rows_of(field.name, flat)
            elif field.kind == "multi":
                part[np.arange(field.max_length) < lengths[:, None]] = self.rows_of(
                    field.name, flat
                )
            else:
                self._history(field, flat, lengths, part)
        return rows, count

    def _history(
        self, field: Field, flat: Sequence[str], lengths: IntArray, part: RowArray
    ) -> None:
        """Fill in the rows of a sequence; unknown ids are left out."""
        slots = self.ids[field.of].slots(flat, EMPTY)
        known = slots != EMPTY
        owner = np.repeat(np.arange(len(lengths)), lengths)[known]
        kept = np.bincount(owner, minlength=len(lengths))
        part[np.arange(field.max_length) < kept[:, None]] = self._rows[field.of][slots[known]]

    @staticmethod
    def _texts(field: Field, columns: Mapping[str, object]) -> tuple[Sequence[str], IntArray]:
        """All texts of a column, row after row, and how many each row has."""
        try:
            column = columns[field.name]
        except KeyError:
            raise SpecError(
                f"column {field.name!r} is missing; there are {', '.join(sorted(columns))}"
            ) from None
        if not isinstance(column, Sequence | np.ndarray) or isinstance(column, str):
            raise SpecError(f"column {field.name!r} is a {type(column).__name__}, not a list")
        if field.kind == "sparse":
            _check_texts(field, column)
            return cast(Sequence[str], column), np.ones(len(column), np.int64)
        wrong = next((r for r in column if isinstance(r, str)), None)
        if wrong is not None:
            raise SpecError(f"column {field.name!r}: each row is a list of texts, one is {wrong!r}")
        most = field.max_length
        lengths = np.fromiter((min(len(r), most) for r in column), np.int64, len(column))
        flat = list(chain.from_iterable(islice(r, most) for r in column))
        _check_texts(field, flat)
        return flat, lengths

    def rows_of(self, name: str, texts: Sequence[str]) -> IntArray:
        """Table rows of ids, int64 [n]; the unknown row for unknown ones."""
        return self._rows[name][self.ids[name].slots(texts)]

    def _admit(self, name: str, texts: Sequence[str]) -> None:
        change = self.ids[name].admit(texts)
        if len(change.expired):
            # the row belongs to another id from now on, or to none: batches that hold it are stale
            self.generation += 1
            self._taken[self._rows[name][change.expired]] = self.generation
        rows = self._rows[name]
        fresh = self.ids[name].slots_used - len(rows)
        if fresh:
            rows = np.concatenate([rows, np.arange(self._used, self._used + fresh)])
            self._rows[name] = rows
            self._used += fresh
            self._grow()
        if len(change.admitted):
            new = torch.from_numpy(rows[change.admitted]).to(self._device)
            self.weight[new] = self.weight[self.unknown_row(name)].clone()
            self._adagrad[new] = _INITIAL
            self.learnt[rows[change.admitted]] = 0

    def _grow(self) -> None:
        if self._used <= len(self.weight):
            return
        rows = max(self._used, 2 * len(self.weight))
        self.weight = self._room(self.weight, rows)
        grown = self._accumulators(rows)
        grown[: len(self._adagrad)] = self._adagrad
        self._adagrad = grown
        self.learnt = np.concatenate([self.learnt, np.zeros(rows - len(self.learnt), np.int64)])
        self._place = np.full(rows, NOWHERE)
        self._taken = np.concatenate([self._taken, np.zeros(rows - len(self._taken), np.int64)])

    def renewed(self, rows: RowArray, generations: IntArray) -> RowArray:
        """Rows [B, K] as encoded at these generations [B], without those of expired ids.

        An id that has expired since is the unknown one; in a list it is left out.
        """
        stale = self._taken[np.maximum(rows, 0)] > generations[:, None]
        if not stale.any():
            return rows
        fresh = rows.copy()
        fresh[stale] = EMPTY
        for field in self.layout.embedded:
            if field.kind == "sparse":
                column = self.layout.row_slice(field.name).start
                fresh[stale[:, column], column] = self.unknown_row(field.name)
        return fresh

    def ids_of(self, name: str, rows: RowArray) -> list[str]:
        """The ids of an id field that have one of these rows, each once."""
        mine, wanted = self._rows[name], np.unique(rows)  # both rise
        slots = np.searchsorted(mine, wanted)
        slots = slots[mine[np.minimum(slots, len(mine) - 1)] == wanted]
        return self.ids[name].texts(slots[slots != UNKNOWN])

    def check(self, batch: Batch) -> None:
        """Raise StaleBatchError if ids were evicted after this batch was encoded."""
        if batch.generation != self.generation:
            raise StaleBatchError(
                "ids were evicted after this batch was encoded and their rows were reused:"
                " encode it again"
            )

    # ------------------------------------------------------------------ forward and step

    def gather(self, rows: RowArray, grad: bool) -> Gathered:
        """Look up the rows of a batch [B, K] and average each field's entries."""
        places = np.empty_like(rows)
        where = self._tensor(number(rows, self._place, places))
        leaf = self.weight.index_select(0, where).requires_grad_(grad)
        means = field_means(leaf, places, self._sides, self.width)
        nothing = leaf.new_zeros(len(rows), 0)
        extra = (nothing, nothing)
        if self.extra:
            behind = leaf[:, self.width + 1 :]
            extra = (self._own(behind, places, 0), self._own(behind, places, 1))
        return Gathered(where, leaf, means[:2], means[2:], extra)

    def _own(self, behind: Tensor, places: RowArray, side: int) -> Tensor:
        """The extra numbers of one side's own ids, [B, E]; 0 where the id is not read."""
        own = places[:, self._own_ids[side]]
        read = self._tensor((own != EMPTY)[:, None])
        return embedding(self._tensor(np.maximum(own, 0).astype(np.int64)), behind) * read

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def step(self, gathered: Gathered, scale: float, lr: float) -> None:
        """Row-wise Adagrad on the gathered rows, from the gradients in their leaf times scale."""
        grad = gathered.leaf.grad
        if grad is None:
            return
        grad.mul_(scale)
        rows = gathered.rows
        squares = torch.stack([grad[:, p].square().mean(1) for p in self._parts], 1)  # [r, parts]
        sums = self._adagrad.index_select(0, rows).add_(squares)
        self._adagrad.index_copy_(0, rows, sums)
        rate = sums.rsqrt_().mul_(lr)
        for i, part in enumerate(self._parts):
            grad[:, part].mul_(rate[:, i : i + 1])
        # rows are distinct, so the result does not depend on the order of additions
        self.weight.index_copy_(0, rows, gathered.leaf.detach() - grad)

    def count(self, rows: RowArray) -> None:
        """Note that a batch [B, K] was learnt."""
        self._total += len(rows)
        for field in self.layout.embedded:
            if field.is_id:
                column = self.layout.row_slice(field.name).start
                np.add.at(self.learnt, rows[:, column], 1)

    def share(self, rows: IntArray) -> FloatArray:
        """Share of all learnt batch rows that held the id of this row, float32 [n]; never 0."""
        counts = np.maximum(1, self.learnt[rows])
        return (counts / max(1, self._total)).astype(np.float32)

    # ------------------------------------------------------------------ state

    def values(self, rows: IntArray) -> FloatArray:
        """The rows as an array, float32 [n, D + 1 + E]."""
        return self.weight[torch.from_numpy(rows).to(self._device)].cpu().numpy()

    def state(self) -> dict[str, npt.NDArray[np.generic] | bytes]:
        """Everything, as copies."""
        used = self._used
        state: dict[str, npt.NDArray[np.generic] | bytes] = {
            "table.weight": self.weight[:used].cpu().numpy().copy(),
            "table.adagrad": self._adagrad[:used].cpu().numpy().copy(),
            "table.learnt": self.learnt[:used].copy(),
            "table.taken": self._taken[:used].copy(),
            "table.counts": np.array([self.generation, self._total], np.int64),
        }
        for name, table in self.ids.items():
            texts, seen = table.state()
            state[f"ids.{name}"] = texts
            state[f"ids.{name}.seen"] = seen
            state[f"ids.{name}.rows"] = self._rows[name].copy()
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        weight = _array(state, "table.weight")
        self._used = len(weight)
        rows = max(64, self._used)
        self.weight = self._room(torch.tensor(weight), rows)
        self._adagrad = self._accumulators(rows)
        self._adagrad[: self._used] = torch.tensor(_array(state, "table.adagrad"))
        self.learnt = np.zeros(rows, np.int64)
        self.learnt[: self._used] = _array(state, "table.learnt")
        self._place = np.full(rows, NOWHERE)
        self._taken = np.zeros(rows, np.int64)
        self._taken[: self._used] = _array(state, "table.taken")
        self.generation, self._total = _array(state, "table.counts").tolist()
        for name, table in self.ids.items():
            texts = state[f"ids.{name}"]
            if not isinstance(texts, bytes):
                raise SpecError(f"ids.{name} of the state must be bytes")
            table.load_state(texts, _array(state, f"ids.{name}.seen").astype(np.int64))
            self._rows[name] = _array(state, f"ids.{name}.rows").astype(np.int64)


def _array(
    state: Mapping[str, npt.NDArray[np.generic] | bytes], name: str
) -> npt.NDArray[np.generic]:
    value = state[name]
    if isinstance(value, bytes):
        raise SpecError(f"{name} of the state must be an array, it is bytes")
    return value


def _check_texts(field: Field, texts: Iterable[object]) -> None:
    """Ids must be texts, also those that look like numbers: 1 and "1" would be two ids."""
    wrong = [kind for kind in set(map(type, texts)) if not issubclass(kind, str)]
    if wrong:
        raise SpecError(
            f"column {field.name!r} holds a {wrong[0].__name__}: give texts, also for ids that look"
            " like numbers"
        )
