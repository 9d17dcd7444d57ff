"""What is particular to the models that IntTower is compared with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from inttower.core.batch import Batch
from inttower.core.learner import Learner
from inttower.core.network import Inputs
from inttower.core.spec import FeatureSpec, Field
from inttower.errors import SpecError
from inttower.models.autoint import AutoInt, AutoIntConfig
from inttower.models.cold import COLD, COLDConfig
from inttower.models.dat import DAT, DATConfig
from inttower.models.dcn import DCN, Cross, DCNConfig
from inttower.models.deepfm import DeepFM, DeepFMConfig, DeepFMNetwork
from inttower.models.dots import Dot
from inttower.models.inttower import IntTower, IntTowerConfig
from inttower.models.logistic import LogisticRegression
from inttower.models.two_tower import TwoTower, TwoTowerConfig, TwoTowerNetwork
from inttower.models.wide_deep import WideDeep, WideDeepConfig

Toy = Callable[..., tuple[dict[str, Any], Any]]

SIZES: dict[str, Any] = {"width": 8, "hidden": (24, 16)}
DOTS = (Dot("state", "factors"),)
WITH_DOTS: dict[str, Callable[[FeatureSpec], Learner]] = {
    "inttower": lambda spec: IntTower(spec, IntTowerConfig(**SIZES, dots=DOTS)),
    "two-tower": lambda spec: TwoTower(spec, TwoTowerConfig(**SIZES, dots=DOTS)),
    "dat": lambda spec: DAT(spec, DATConfig(**SIZES, dots=DOTS)),
    "cold": lambda spec: COLD(spec, COLDConfig(**SIZES, dots=DOTS)),
    "wide-deep": lambda spec: WideDeep(spec, WideDeepConfig(**SIZES, dots=DOTS)),
    "deepfm": lambda spec: DeepFM(spec, DeepFMConfig(**SIZES, dots=DOTS)),
    "dcn": lambda spec: DCN(spec, DCNConfig(**SIZES, dots=DOTS)),
    "autoint": lambda spec: AutoInt(spec, AutoIntConfig(**SIZES, dots=DOTS)),
}


def _inputs(model: Learner, batch: Batch) -> Inputs:
    return model._inputs(batch.rows, batch.dense, grad=False)[0]


@pytest.mark.parametrize("name", WITH_DOTS)
def test_every_model_gets_the_same_cross(name: str, spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(100)
    model = WITH_DOTS[name](spec)
    batch = model.encode(columns, admit=True)
    model.fit(batch, labels, epochs=1)
    before = model.predict(batch)
    with torch.no_grad():
        model.network.get_parameter("dots.weights.0").add_(1)
    cross = (columns["state"] * columns["factors"]).sum(1)
    np.testing.assert_allclose(model.predict(batch) - before, cross, atol=1e-4)


@pytest.mark.parametrize("dot", [Dot("factors", "state"), Dot("activity", "factors")])
def test_a_dot_needs_two_equally_wide_sides(spec: FeatureSpec, dot: Dot) -> None:
    with pytest.raises(SpecError, match="equally wide"):
        DCN(spec, DCNConfig(**SIZES, dots=(dot,)))


def test_the_cosine_is_scaled_by_what_is_learnt(spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(200)
    model = TwoTower(spec, TwoTowerConfig(**SIZES, scale=3))
    batch = model.encode(columns, admit=True)
    model.fit(batch, labels, epochs=3, batch_size=32)
    network = model.network
    assert isinstance(network, TwoTowerNetwork)
    scale, bias = float(network.scale.detach()), float(network.bias.detach())
    assert scale != 3
    assert np.abs(model.predict(batch) - bias).max() <= scale


def test_mimicry_teaches_the_augmented_vectors_alone(spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(200)
    states = []
    for mimic in (0.0, 0.5):
        model = DAT(spec, DATConfig(**SIZES, mimic=mimic))
        model.learn(model.encode(columns, admit=True), labels)
        states.append(model.state())
    (without, plain), (dense, wide) = (
        (np.asarray(s["dense"]), np.asarray(s["table.weight"])) for s in states
    )
    np.testing.assert_array_equal(without, dense)
    np.testing.assert_array_equal(plain[:, :9], wide[:, :9])
    assert not np.array_equal(plain[:, 9:], wide[:, 9:])


def test_augmented_vectors_come_to_resemble_the_other_tower(spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(1000)
    model = DAT(spec, DATConfig(**SIZES, scale=1))
    batch = model.encode(columns, admit=True)
    model.fit(batch, labels, epochs=20, batch_size=64)
    inputs = _inputs(model, batch)
    _, p_v = model.network.towers(inputs)  # type: ignore[operator]
    alike = (normalize(inputs.user.extra, dim=1) * p_v).sum(1).numpy(force=True)
    assert alike[labels == 1].mean() > alike[labels == 0].mean() + 0.2


def test_the_fm_is_the_sum_over_all_pairs_of_fields(spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(50)
    model = DeepFM(spec, DeepFMConfig(**SIZES))
    batch = model.encode(columns, admit=True)
    model.fit(batch, labels, epochs=5)
    network = model.network
    assert isinstance(network, DeepFMNetwork)
    inputs = _inputs(model, batch)
    vectors = network.fields(inputs)
    assert vectors.shape == (50, len(spec.fields), 8)
    pairs = sum(
        (
            (vectors[:, j] * vectors[:, k]).sum(1)
            for j, k in combinations(range(len(spec.fields)), 2)
        ),
        torch.zeros(50),
    )
    deep = network.deep(torch.cat((inputs.user.flat(), inputs.item.flat()), 1)).squeeze(1)
    wanted = pairs + network.first(inputs) + deep + network.bias
    np.testing.assert_allclose(model.predict(batch), wanted.numpy(force=True), atol=1e-5)


def test_a_dense_vector_is_one_field_linear_in_its_numbers(spec: FeatureSpec, toy: Toy) -> None:
    columns, _ = toy(3)
    columns["state"] = np.array([[1, 0, 0], [0, 1, 1], [np.nan, 1, 1]], np.float32)
    model = DeepFM(spec, DeepFMConfig(**SIZES))
    inputs = _inputs(model, model.encode(columns, admit=True))
    fields = model.network.get_submodule("fields")
    at = [f.name for f in model.layout.dense].index("state") - len(model.layout.dense)
    first = model.layout.dense_slice("state").start
    v = fields.get_parameter("V")[first : first + 3]
    wanted = torch.stack((v[0], v[1] + v[2], v[1] + v[2]))
    torch.testing.assert_close(fields(inputs)[:, at], wanted)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_cross_layer_multiplies_by_the_inputs(rank: int) -> None:
    cross = Cross(5, rank)
    x0, x = torch.randn(4, 5), torch.randn(4, 5)
    zero, one = torch.zeros(4, 5), torch.ones(4, 5)
    assert torch.equal(cross(zero, x), x)
    torch.testing.assert_close(cross(x0, x) - x, x0 * (cross(one, x) - x))


def test_logistic_regression_bears_a_side_without_numbers() -> None:
    fields = (
        Field("u", "user", "sparse", is_id=True),
        Field("i", "item", "sparse", is_id=True),
        Field("x", "user", "dense"),
    )
    model = LogisticRegression(FeatureSpec(fields))  # a warning would fail the test
    columns: dict[str, Any] = {
        "u": ["a", "b"],
        "i": ["c", "c"],
        "x": np.array([1.0, -1.0], np.float32),
    }
    batch = model.encode(columns, admit=True)
    model.fit(batch, np.array([1, 0]), epochs=50)
    yes, no = model.predict(batch)
    assert yes > no
