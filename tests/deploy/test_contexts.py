"""A request's context gives the same inputs when it is learnt and when it is ranked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from features.catalogue import Catalogue
from features.declaration import ContextInput
from features.logs.movielens_features import MOVIELENS
from features.model_inputs import getter
from features.samples import Shown, sample_decoder
from serving.http.messages import RankRequest
from serving.model.ranking import request_columns
from tests.trainer import synthetic
from trainer.learning.sample_inputs import FrozenFeatures, SampleInputs

DECLARED = replace(
    MOVIELENS,
    contexts=(
        ContextInput("device", "sparse"),
        ContextInput("hour", "sparse", convert="bucket", edges=(6.0, 12.0, 18.0)),
        ContextInput("price", "dense", convert="number"),
        ContextInput("tags", "multi"),
        ContextInput("slot", "sparse", "place"),
    ),
)
READ: dict[str, Any] = {
    "device": "phone",
    "hour": "2",
    "price": 9.5,
    "tags": ("a", "b"),
    "slot": "3",
}
BLANK: dict[str, Any] = {"device": "", "hour": "", "price": 0.0, "tags": (), "slot": ""}


def sample(context: object) -> Shown:
    """A sample of the topic; the job writes the context as a text."""
    record = msgspec.json.decode(synthetic.samples(9)[8][0])
    if context is not None:
        record["context"] = msgspec.json.encode(context).decode()
    shown = sample_decoder(DECLARED)(msgspec.json.encode(record))
    assert isinstance(shown, Shown)
    return shown


@pytest.mark.parametrize(
    ("context", "read"),
    [
        ({"device": "phone", "hour": 13, "price": 9.5, "tags": ["a", "b"], "place": 3.0}, READ),
        ({"device": "phone"}, {**BLANK, "device": "phone"}),
        ({"device": [1], "hour": "late", "price": 1e300, "tags": "a", "more": {}}, BLANK),
        ({"device": 10**400, "hour": 10**400, "price": 10**400}, BLANK),
        (None, BLANK),
    ],
)
def test_the_columns_of_a_request_are_those_of_its_sample(
    context: dict[str, Any] | None, read: dict[str, Any]
) -> None:
    catalogue = Catalogue(DECLARED)
    inputs = SampleInputs(DECLARED, catalogue, lambda _entity, _ids, _at: None)
    # beside one that has none, in one batch
    shown = sample(context)
    learnt = inputs.live([sample(None), shown])
    request = RankRequest(user_id=shown.user_id, candidates="all", context=context)
    values = getter(DECLARED, "user")(shown.features)
    served = request_columns(DECLARED, catalogue, request, values, shown.at)
    for name, column in served.items():
        assert column[0] == learnt[name][1], name
    assert {name: served[name][0] for name in READ} == read
    assert {name: learnt[name][0] for name in READ} == BLANK
    stood = inputs.frozen([shown], FrozenFeatures(DECLARED, 10))
    assert {name: stood[name][0] for name in READ} == read
