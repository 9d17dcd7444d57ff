"""The base of all models: encoding, embedding table, scaling, optimisers, saved state.

It is one file, for each method works on the same table, weights and optimiser.

A model adds its network only. To add one, write a file with a config dataclass, a
:class:`Network` and a :class:`Learner` whose ``__init__`` builds it::

    class DeepFM(Learner):
        def __init__(self, spec, config=DeepFMConfig(), *, training=Training(), seed=0,
                     device="cpu"):
            super().__init__(
                spec, config, lambda shape: DeepFMNetwork(shape, config),
                width=config.width, training=training, seed=seed, device=device,
            )
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inttower.core.batch import EMPTY, SIDES, Batch, FloatArray, IntArray, Layout, RowArray
from inttower.core.contract import Columns, Labels, Progress, State
from inttower.core.input_scaling import column_scaling
from inttower.core.network import Inputs, Network, Shape, SideInputs, SideShape, flatten
from inttower.core.spec import FeatureSpec, Side
from inttower.core.tables import Embeddings, Gathered
from inttower.core.training import Training
from inttower.core.weights_state import load_weights_state, weights_state
from inttower.errors import SpecError
from inttower.publish.published import EncoderArguments, frozen

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Scaled dense numbers are clipped here: beyond it a number means "very large" and no more
_CLIP = 5.0
# Rows that predict takes at a time: it bounds memory and changes no result
_CHUNK = 8192


class Learner:
    """A network and an embedding table, behind :class:`inttower.core.contract.Model`.

    Args:
        spec: the fields.
        config: the network's dataclass; kept with bundles and compared on :meth:`load_state`.
        network: builds the network, given the shape of its inputs.
        width: D; 0 for a network that reads dense fields only and needs no table.
        extra: E, further learnt numbers of each side's own id that the network reads.
        training: how it learns.
        seed: of all first weights.
        device: ``"cpu"``, ``"cuda"``, …
    """

    reads_ids: ClassVar[bool] = True

    def __init__(
        self,
        spec: FeatureSpec,
        config: DataclassInstance,
        network: Callable[[Shape], Network],
        *,
        width: int,
        extra: int = 0,
        training: Training,
        seed: int,
        device: str,
    ) -> None:
        self.spec = spec
        self.config = config
        self.training = training
        self.layout = Layout(spec)
        self._device = torch.device(device)
        self.table: Embeddings | None = None
        if self.reads_ids:
            self.table = Embeddings(
                self.layout,
                width,
                extra=extra,
                limit=training.limit,
                admit_after=training.admit_after,
                expire_after=training.expire_after,
                seed=seed,
                device=device,
            )
        n = self.layout.dense_columns
        self._mean = np.zeros(n, np.float32)
        self._scale = np.ones(n, np.float32)  # 1 / standard deviation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = network(self.shape(width))
        self.network.to(self._device)
        self._dense = flatten(self.network)
        # all weights are one vector: Adam is one fused launch a step, on CPU and GPU
        self._adam = torch.optim.Adam([self._dense], lr=training.lr_stream, fused=True)

    def shape(self, width: int) -> Shape:
        """Sizes of the network's inputs."""
        sides = []
        for side in SIDES:
            fields, dense = self.layout.fields_of(side), self.layout.dense_of(side)
            sides.append(SideShape(fields.stop - fields.start, width, dense.stop - dense.start))
        return Shape(sides[0], sides[1], self.layout)

    def encode(self, columns: Columns, admit: bool) -> Batch:
        """Look up ids; see :meth:`inttower.core.contract.Model.encode`."""
        if self.table is not None:
            rows, count = self.table.encode(columns, admit)
            generation = self.table.generation
        else:
            count = self._length(columns)
            rows, generation = np.zeros((count, 0), np.int32), 0
        return Batch(rows, self.layout.dense_matrix(columns, count), generation)

    def _length(self, columns: Columns) -> int:
        for field in self.layout.dense:
            if field.name in columns:
                return len(columns[field.name])
        raise SpecError(f"none of the dense columns is there; there are {', '.join(columns)}")

    def renewed(self, rows: RowArray, dense: FloatArray, generations: IntArray) -> Batch:
        """Rows that were encoded earlier; see :meth:`inttower.core.contract.Model.renewed`."""
        if self.table is None:
            return Batch(rows, dense, 0)
        return Batch(self.table.renewed(rows, generations), dense, self.table.generation)

    def ids_of(self, batch: Batch, side: str) -> list[str]:
        """The ids of a side whose rows a step on this batch changes, those of histories too."""
        if self.table is None:
            return []
        name = self.spec.id_field(cast(Side, side)).name
        fields = [f.name for f in self.layout.embedded if name in (f.name, f.of)]
        columns = [batch.rows[:, self.layout.row_slice(field)] for field in fields]
        return self.table.ids_of(name, np.concatenate(columns, axis=1))

    def predict(self, batch: Batch) -> FloatArray:
        """Logits, float32 [B]; changes nothing."""
        self._check(batch)
        out = np.empty(len(batch), np.float32)
        with torch.inference_mode():
            for start in range(0, len(batch), _CHUNK):
                part = batch.take(slice(start, start + _CHUNK))
                inputs, _ = self._inputs(part.rows, part.dense, grad=False)
                out[start : start + _CHUNK] = self.network(inputs).cpu().numpy()
        return out

    def learn(self, batch: Batch, labels: Labels, weights: FloatArray | None = None) -> float:
        """One step; returns the mean loss before it."""
        return self.predict_then_learn(batch, labels, weights)[1]

    def predict_then_learn(
        self,
        batch: Batch,
        labels: Labels,
        weights: FloatArray | None = None,
        *,
        offset: FloatArray | None = None,
    ) -> tuple[FloatArray, float]:
        """One step; the model's own logits [B] and the mean loss before it.

        ``offset``: logits [B] to which the model adds its own as a residual; none: 0.
        """
        self._check(batch)
        if not len(batch):
            raise SpecError("a batch without rows cannot be learnt: skip it")
        return self._step(batch.rows, batch.dense, labels, weights, offset=offset)

    def fit(
        self,
        batch: Batch,
        labels: Labels,
        *,
        weights: FloatArray | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        offset: FloatArray | None = None,
        after_epoch: Callable[[], None] | None = None,
    ) -> None:
        """Warm up: scale the dense fields, set the bias, then shuffled epochs.

        With ``offset`` (see :meth:`predict_then_learn`) it starts as nothing. ``after_epoch`` is
        called behind each.

        Raises:
            SpecError: with an offset, the network has no start at 0.
        """
        self._check(batch)
        if not len(batch):
            raise SpecError("a warm-up needs rows: give at least one")
        epochs = self.training.epochs if epochs is None else epochs
        size = self.training.batch_size if batch_size is None else batch_size
        rounded = self.training.products == "bfloat16"
        self._mean, self._scale = column_scaling(batch.dense)
        rate = float(np.clip(np.mean(labels.astype(np.float64)), 1e-4, 1 - 1e-4))
        if offset is None:
            with torch.no_grad():
                self.network.bias.fill_(np.log(rate / (1 - rate)))
        else:
            self.network.start_as_nothing()
        rng = np.random.default_rng(seed)
        starts = range(0, len(batch), size)
        done, total = 0, epochs * len(starts)
        for _ in range(epochs):
            order = rng.permutation(len(batch))
            for start in starts:
                self.set_rate(self._warm_lr(done / total))
                part = batch.take(order[start : start + size])
                rows = self._drop_ids(part.rows, rng)
                some = order[start : start + size]
                beside = None if offset is None else offset[some]
                weight = None if weights is None else weights[some]
                self._step(rows, part.dense, labels[some], weight, offset=beside, rounded=rounded)
                done += 1
                if progress is not None and done % 64 == 0:
                    progress(done / total)
            if after_epoch is not None:
                after_epoch()
        self.set_rate(self.training.lr_stream)
        if progress is not None:
            progress(1.0)

    def state(self) -> State:
        """Everything learnt, as copies."""
        state: State = {} if self.table is None else self.table.state()
        state["signature"] = self._signature()
        state |= weights_state(self._dense, self._adam)
        state["scaling"] = np.stack((self._mean, self._scale))
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        if state.get("signature") != self._signature():
            raise SpecError(
                "the state is of another model, feature spec or configuration: make the model"
                f" with the same arguments as when it was saved ({state.get('signature')!r})"
            )
        if self.table is not None:
            self.table.load_state(state)
        load_weights_state(self._dense, self._adam, state)
        self._mean, self._scale = np.array(state["scaling"], np.float32)

    def known_ids(self, side: str) -> list[str]:
        """The ids of a side that have a row of their own, in row order."""
        if self.table is None:
            return []
        return self.table.ids[self.spec.id_field(cast(Side, side)).name].ids()

    def _id_rows(self, side: Side, ids: Sequence[str]) -> FloatArray:
        if self.table is None:
            return np.zeros((len(ids), 0), np.float32)
        name = self.spec.id_field(side).name
        return self._as_read(side, self.table.values(self.table.rows_of(name, ids)))

    def _as_read(self, side: Side, rows: FloatArray) -> FloatArray:
        """Rows of a side's own ids as the network reads them: zeros if that side is unread."""
        return np.zeros_like(rows) if side in self.training.unread else rows

    def user_id_rows(self, ids: Sequence[str]) -> FloatArray:
        """The learnt rows of these users, float32 [n, R]; R = D + 1 + E."""
        return self._id_rows("user", ids)

    def item_id_rows(self, ids: Sequence[str]) -> FloatArray:
        """The learnt rows of these items, float32 [n, R]."""
        return self._id_rows("item", ids)

    def published(self) -> EncoderArguments:
        """Arguments of the serving encoder of a decoupled model, as copies."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            f"net.{name}": value.numpy(force=True)
            for name, value in self.network.state_dict().items()
        }
        arrays["scaling"] = np.stack((self._mean, self._scale))
        vocabularies = {}
        if self.table is not None:
            for name, ids in self.table.ids.items():
                field = self.spec.field(name)
                rows = np.array([self.table.unknown_row(name)])
                if field.is_id:
                    arrays[f"rows.{name}"] = self._as_read(field.side, self.table.values(rows))
                    continue
                vocabularies[name] = ids.ids()
                rows = np.concatenate([rows, self.table.rows_of(name, ids.ids())])
                arrays[f"rows.{name}"] = self.table.values(rows)
        return EncoderArguments(
            spec=self.spec,
            config=json.loads(json.dumps(asdict(self.config))),
            arrays=frozen(arrays),
            vocabularies=vocabularies,
        )

    # ------------------------------------------------------------------ steps

    def _step(
        self,
        rows: RowArray,
        dense: FloatArray,
        labels: Labels,
        weights: FloatArray | None,
        *,
        offset: FloatArray | None = None,
        rounded: bool = False,
    ) -> tuple[FloatArray, float]:
        known = np.ascontiguousarray(labels, np.float32)
        if not ((known == 0) | (known == 1)).all():
            raise SpecError(
                "labels must be 0 or 1, one is something else: a step would spoil the model"
            )
        y = self._tensor(known)
        if y.shape != (len(dense),):
            raise SpecError(f"{len(dense)} rows need as many labels, not {tuple(y.shape)}")
        w = (
            torch.ones_like(y)
            if weights is None
            else self._tensor(np.ascontiguousarray(weights, np.float32))
        )
        inputs, gathered = self._inputs(rows, dense, grad=True, offset=offset)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=rounded):
            loss, logits = self.network.loss(inputs, y, w)
        if self._dense.grad is not None:
            self._dense.grad.zero_()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._adam.step()
        if self.table is not None and gathered is not None:
            # the loss is a mean, but Adagrad takes gradients that are sums over the batch
            self.table.step(gathered, len(dense), self.training.lr_rows)
            self.table.count(rows)
        return logits.detach().float().cpu().numpy(), float(loss.detach())

    def _inputs(
        self,
        rows: RowArray,
        dense: FloatArray,
        *,
        grad: bool,
        offset: FloatArray | None = None,
    ) -> tuple[Inputs, Gathered | None]:
        missing = np.isnan(dense)
        raw = np.where(missing, np.float32(0), dense)
        scaled = np.clip((dense - self._mean) * self._scale, -_CLIP, _CLIP)
        scaled = np.where(missing, np.float32(0), scaled)
        numbers = self._tensor(np.stack((scaled, raw)))  # [2, B, n]
        gathered = None if self.table is None else self.table.gather(self._read(rows), grad)
        sides = []
        for i, side in enumerate(SIDES):
            columns = self.layout.dense_of(side)
            empty = numbers.new_zeros(len(dense), 0)
            sides.append(
                SideInputs(
                    fields=empty.unsqueeze(2) if gathered is None else gathered.fields[i],
                    first=empty if gathered is None else gathered.first[i],
                    dense=numbers[0, :, columns],
                    raw=numbers[1, :, columns],
                    ids=self._tensor(self._ids(rows, side)),
                    extra=empty if gathered is None else gathered.extra[i],
                )
            )
        share = np.ones(len(dense), np.float32)
        if self.table is not None:
            share = self.table.share(self._ids(rows, "item"))
        beside = np.zeros(len(dense), np.float32) if offset is None else offset
        return Inputs(sides[0], sides[1], self._tensor(share), self._tensor(beside)), gathered

    def _read(self, rows: RowArray) -> RowArray:
        """The rows, with padding in place of ids that are not read."""
        if self.training.unread:
            rows = rows.copy()
            for side in self.training.unread:
                rows[:, self.layout.row_slice(self.spec.id_field(side).name)] = EMPTY
        return rows

    def _ids(self, rows: RowArray, side: Side) -> npt.NDArray[np.int64]:
        if self.table is None:
            return np.zeros(len(rows), np.int64)
        column = self.layout.row_slice(self.spec.id_field(side).name).start
        return rows[:, column].astype(np.int64)

    def _drop_ids(self, rows: RowArray, rng: np.random.Generator) -> RowArray:
        """Id-dropout: a copy in which some ids are replaced by the unknown one."""
        if self.table is None or not self.training.id_dropout:
            return rows
        rows = rows.copy()
        for side in SIDES:
            name = self.spec.id_field(side).name
            gone = rng.random(len(rows)) < self.training.id_dropout
            rows[gone, self.layout.row_slice(name).start] = self.table.unknown_row(name)
        return rows

    def _warm_lr(self, done: float) -> float:
        t = self.training
        return t.lr if done < 0.5 else t.lr + (t.lr_end - t.lr) * (done - 0.5) * 2

    def set_rate(self, lr: float) -> None:
        """Adam's, from now on."""
        self._adam.param_groups[0]["lr"] = lr

    def _check(self, batch: Batch) -> None:
        if self.table is not None:
            self.table.check(batch)

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _signature(self) -> bytes:
        facts = {
            "model": type(self).__name__,
            "config": asdict(self.config),
            "spec": self.spec.to_json(),
        }
        return json.dumps(facts, sort_keys=True).encode()
