"""Serving encoders of each decoupled model, in numpy; they equal the networks to 1e-5.

A new decoupled model adds a subclass of ``ServingEncoder`` here, and its name to :data:`ENCODERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from typing_extensions import override

from inttower.core.batch import FloatArray
from inttower.core.spec import Side
from inttower.publish.published import RowsOf, ServingEncoder, UserVector


class _TowerEncoder(ServingEncoder):
    """Base of the encoders with towers; ``config`` has ``width``, ``hidden`` and ``dots``."""

    def _linear(self, name: str, x: FloatArray) -> FloatArray:
        return cast(FloatArray, x @ self._net(f"{name}.weight").T + self._net(f"{name}.bias"))

    def _flat(self, rows: FloatArray, dense: FloatArray) -> FloatArray:
        """Embeddings and dense numbers side by side, [B, m·D + n]."""
        E = rows[:, :, : self.config["width"]]  # [B, m, D]
        return np.concatenate((E.reshape(len(E), -1), dense), 1)

    @property
    def _dots_width(self) -> int:
        return sum(self.spec.field(d["item"]).width for d in self.config["dots"])

    def _user_dots(self, raw: FloatArray) -> list[FloatArray]:
        """The user's part of each dot, w ∘ x, [its width] each."""
        return [
            raw[0, self._dense_columns("user", dot["user"])] * self._net(f"dots.weights.{i}")
            for i, dot in enumerate(self.config["dots"])
        ]

    def _item_dots(self, raw: FloatArray) -> list[FloatArray]:
        """The items' part of each dot, y, [n, its width] each."""
        return [raw[:, self._dense_columns("item", d["item"])] for d in self.config["dots"]]

    def _dense_columns(self, side: Side, name: str) -> slice:
        columns, first = self._layout.dense_slice(name), self._layout.dense_of(side).start
        return slice(columns.start - first, columns.stop - first)


class IntTowerEncoder(_TowerEncoder):
    """IntTower; an item is [H·p heads | bias | FM skip | dots]."""

    model = "IntTower"

    @property
    @override
    def item_width(self) -> int:
        c = self.config
        tail = c["first_order"] + c["fm_rank"] + self._dots_width
        return int(c["heads"] * c["head_size"] + tail)

    @property
    @override
    def row_width(self) -> int:
        return int(self.config["width"]) + 1

    @override
    def item_vectors(self, columns: Mapping[str, Any], id_rows: FloatArray | None) -> FloatArray:
        rows = self._embed("item", columns, id_rows, None)
        dense, raw = self._dense("item", columns, id_rows)
        V = self._linear("item_heads", self._tower("item", rows, dense)[-1])  # [n, H·p]
        parts = [V]
        if self.config["first_order"]:
            parts.append(self._first("item", rows, dense)[:, None])
        if self.config["fm_rank"]:
            parts.append(self._flat(rows, dense) @ self._net("B.weight").T)
        parts += self._item_dots(raw)
        return np.concatenate(parts, 1, dtype=np.float32)

    @override
    def user_vector(
        self, columns: Mapping[str, Any], id_row: FloatArray | None, rows_of: RowsOf
    ) -> UserVector:
        rows = self._embed("user", columns, id_row, rows_of)  # [1, m, D + 1]
        dense, raw = self._dense("user", columns, id_row)
        H, p = self.config["heads"], self.config["head_size"]
        used = self.config["layers"] or len(self.config["hidden"])
        outputs = self._tower("user", rows, dense)[-used:]
        U = np.concatenate([self._linear(f"user_heads.{i}", h) for i, h in enumerate(outputs)])
        bias = float(self._net("bias"))
        tail = []
        if self.config["first_order"]:
            bias += float(self._first("user", rows, dense)[0])
            tail.append(np.ones(1, np.float32))
        if self.config["fm_rank"]:
            tail.append(self._net("A.weight") @ self._flat(rows, dense)[0])
        tail += self._user_dots(raw)
        return UserVector(
            heads=U.reshape(used, H, p),
            layer_weights=self._net("layer_weight") / np.float32(np.sqrt(p * H)),
            tail=np.concatenate(tail) if tail else np.zeros(0, np.float32),
            bias=bias,
        )

    def _tower(self, side: Side, rows: FloatArray, dense: FloatArray) -> list[FloatArray]:
        E = rows[:, :, :-1]  # [B, m, D]
        z = self._linear(f"{side}.light_se.excite", E.mean(2))
        k = np.exp(z - z.max(1, keepdims=True))
        k /= k.sum(1, keepdims=True)
        x = np.concatenate(((E * (1 + k)[:, :, None]).reshape(len(E), -1), dense), 1)
        outputs = []
        for i in range(len(self.config["hidden"])):
            x = np.maximum(self._linear(f"{side}.layers.{i}", x), np.float32(0))
            outputs.append(x)
        return outputs

    def _first(self, side: Side, rows: FloatArray, dense: FloatArray) -> FloatArray:
        weights = self._net(f"{side}_first")
        return cast(FloatArray, rows[:, :, -1].sum(1) + dense @ weights)


class TwoTowerEncoder(_TowerEncoder):
    """The two-tower model; an item is [its vector | dots], all tail."""

    model = "TwoTower"

    @property
    @override
    def item_width(self) -> int:
        return int(self.config["hidden"][-1]) + self._dots_width

    @property
    @override
    def row_width(self) -> int:
        return int(self.config["width"]) + 1

    @override
    def item_vectors(self, columns: Mapping[str, Any], id_rows: FloatArray | None) -> FloatArray:
        rows = self._embed("item", columns, id_rows, None)
        dense, raw = self._dense("item", columns, id_rows)
        v = self._tower("item", rows, dense)  # [n, 128]
        return np.concatenate([v, *self._item_dots(raw)], 1, dtype=np.float32)

    @override
    def user_vector(
        self, columns: Mapping[str, Any], id_row: FloatArray | None, rows_of: RowsOf
    ) -> UserVector:
        rows = self._embed("user", columns, id_row, rows_of)
        dense, raw = self._dense("user", columns, id_row)
        u = self._tower("user", rows, dense)[0]  # [128]
        if self._cosine:
            u = u * self._net("scale")
        tail = np.concatenate([u, *self._user_dots(raw)], dtype=np.float32)
        none = np.zeros((0, 0, 0), np.float32)
        return UserVector(none, np.zeros(0, np.float32), tail, float(self._net("bias")))

    @property
    def _cosine(self) -> bool:
        return bool(self.config["similarity"] == "cosine")

    def _inputs(self, side: Side, rows: FloatArray, dense: FloatArray) -> FloatArray:
        return self._flat(rows, dense)

    def _tower(self, side: Side, rows: FloatArray, dense: FloatArray) -> FloatArray:
        x = self._inputs(side, rows, dense)
        last = len(self.config["hidden"]) - 1
        for i in range(last):
            x = np.maximum(self._linear(f"{side}.layers.{i}", x), np.float32(0))
        x = self._linear(f"{side}.layers.{last}", x)
        if self._cosine:
            # like torch's normalize: a vector of length 0 is unchanged
            x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
        return x


class DATEncoder(TwoTowerEncoder):
    """DAT: two towers that also read the augmented vector, which follows the own ids' rows."""

    model = "DAT"

    @property
    @override
    def row_width(self) -> int:
        return int(self.config["width"]) + 1 + int(self.config["hidden"][-1])

    @property
    @override
    def _cosine(self) -> bool:
        return True

    @override
    def _inputs(self, side: Side, rows: FloatArray, dense: FloatArray) -> FloatArray:
        fields = [f for f in self.spec.of_side(side) if f.kind != "dense"]
        own = fields.index(self.spec.id_field(side))
        augmented = rows[:, own, self.config["width"] + 1 :]
        return np.concatenate((self._flat(rows, dense), augmented), 1)


class LogisticEncoder(ServingEncoder):
    """Logistic regression: an item is one number."""

    model = "LogisticRegression"

    @property
    @override
    def item_width(self) -> int:
        return 1

    @property
    @override
    def row_width(self) -> int:
        return 0

    @override
    def item_vectors(self, columns: Mapping[str, Any], id_rows: FloatArray | None) -> FloatArray:
        dense, _ = self._dense("item", columns, id_rows)
        return cast(FloatArray, dense @ self._net("item.weight").T)

    @override
    def user_vector(
        self, columns: Mapping[str, Any], id_row: FloatArray | None, rows_of: RowsOf
    ) -> UserVector:
        dense, _ = self._dense("user", columns, id_row)
        bias = float(self._net("bias")) + float(dense[0] @ self._net("user.weight")[0])
        none = np.zeros((0, 0, 0), np.float32)
        return UserVector(none, np.zeros(0, np.float32), np.ones(1, np.float32), bias)


ENCODERS: dict[str, type[ServingEncoder]] = {
    b.model: b for b in (IntTowerEncoder, LogisticEncoder, TwoTowerEncoder, DATEncoder)
}
