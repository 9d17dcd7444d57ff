"""``bench online``: predict, then learn, in time order.

The first part of the log is the warm-up. After it, batch by batch, every model predicts rows that
it has not learnt. The modes differ in what a model may know at that moment:

- ``frozen``: weights and features as of the end of the warm-up.
- ``frozen weights``: the same weights on live features.
- ``refreshed``: a copy of the online model serves; it is renewed after so many events or so much
  event
  time (:mod:`bench.refresh`).
- ``online``: one learning step a batch, after its prediction.

Each is measured by AUC, log loss and GAUC: over the whole stream, over its tenths, and by the
number of impressions that the user had before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bench.log_rows import CHUNK, LogRows, Rows, Times, part_of, warm_up_end, whole_moments
from bench.refresh import Refresh, ServedWeights
from bench.stack.list_figures import list_figures, requests_of
from bench.user_state_features import UserStateFeatures
from inttower.core.batch import FloatArray
from inttower.core.contract import Model
from inttower.core.spec import FeatureSpec
from inttower.evaluate import figures

Report = Callable[[str, float], None]
FigureRow = dict[str, float | int | None]

# groups of rows by how many impressions their user had before: name and lower bound
EXPERIENCE = (("none", 0), ("1-4", 1), ("5-19", 5), ("20-99", 20), ("100+", 100))
_TENTHS = 10
# modes that every protocol has, and slices that each is measured on
MODES = ("frozen", "frozen weights", "online")
OVERALL = {"by": "all", "group": "all"}
SLICES = 1 + _TENTHS + len(EXPERIENCE)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a model is tested.

    Args:
        warm_up: share of the rows that the warm-up learns.
        batch: rows predicted, then learnt, at a time; more where a moment has more.
        refreshes: how served weights are renewed, in addition to never and at each batch.
        frozen_features: also predict with features as of the end of the warm-up.
        known_at: the time as of which features of rows are read (default: their own time).
        spec: the fields that the model reads; none: all.
        refit_every: rows of the stream between two refits of a user state.
    """

    warm_up: float = 0.8
    batch: int = 64
    refreshes: tuple[Refresh, ...] = ()
    frozen_features: bool = True
    known_at: Callable[[Rows], Times] | None = None
    spec: FeatureSpec | None = None
    refit_every: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Logits of every mode on the same rows.

    Attributes:
        rows: int64 [n], the stream.
        logits: float32 [n] by mode.
    """

    rows: Rows
    logits: dict[str, FloatArray]


def run(
    make: Callable[[FeatureSpec], Model],
    data: LogRows,
    protocol: Protocol,
    *,
    seed: int = 0,
    state: bool = False,
    report: Report | None = None,
) -> Outcome:
    """Warm a model up, then stream the rest through it.

    Args:
        make: returns a new model of a spec, equal at each call.
        data: the rows.
        protocol: how to test.
        seed: of the warm-up's order.
        state: give the model the user state as inputs.
        report: called with what is being done and the share of it that is done.
    """
    say = report or _quiet
    end = warm_up_end(data.log, protocol.warm_up)
    warm, stream = np.arange(end), np.arange(end, len(data))
    labels, weights = data.log.labels, data.log.weights
    known_at = protocol.known_at or data.ts.__getitem__

    spec = protocol.spec or data.spec
    user_state_features = UserStateFeatures(
        data, spec, state=state, refit_every=protocol.refit_every
    )
    model = make(user_state_features.spec)
    say("user state" if state else "encode", 0.0)
    batch = user_state_features.warm_up(model, warm, known_at(warm))
    model.fit(
        batch,
        labels[warm],
        weights=weights[warm],
        seed=seed,
        progress=lambda part: say("warm-up", part),
    )
    del batch  # half a gigabyte on large logs

    frozen = _copy(make(user_state_features.spec), model)
    logits: dict[str, list[FloatArray]] = {"frozen weights": [], "online": []}
    if protocol.frozen_features:
        logits["frozen"] = []
    then = int(data.ts[end])
    served = [
        ServedWeights(refresh, _copy(make(user_state_features.spec), model), then)
        for refresh in protocol.refreshes
    ]
    still = user_state_features.copy()
    for part in whole_moments(data.ts, end, len(data), CHUNK):
        say("stream", (part.start - end) / len(stream))
        rows = np.arange(part.start, part.stop)
        columns = data.columns(rows, known_at(rows))
        if protocol.frozen_features:
            cut = np.full(len(rows), then)
            frozen_columns = still.joined(data.columns(rows, cut, cut), cut)
            logits["frozen"].append(frozen.predict(frozen.encode(frozen_columns, admit=False)))
        for inner in whole_moments(data.ts[rows], 0, len(rows), protocol.batch):
            ours = rows[inner]
            some = user_state_features.streamed(
                part_of(columns, inner), data.ts[ours], labels[ours]
            )
            for one in served:
                one.take(some, data.ts[ours], model)
            logits["frozen weights"].append(frozen.predict(frozen.encode(some, admit=False)))
            batch = model.encode(some, admit=True)
            logits["online"].append(model.predict_then_learn(batch, labels[ours], weights[ours])[0])
    whole = {name: np.concatenate(found) for name, found in logits.items()}
    return Outcome(stream, whole | {one.refresh.name: one.finish() for one in served})


def _quiet(_what: str, _part: float) -> None:
    return None


def _copy(new: Model, model: Model) -> Model:
    new.load_state(model.state())
    return new


def overall(outcome: Outcome, data: LogRows) -> Iterator[tuple[str, FigureRow]]:
    """Each mode with its figures over all rows."""
    for key, found in measured(outcome, data):
        if key["by"] == OVERALL["by"]:
            yield key["mode"], found


def measured(outcome: Outcome, data: LogRows) -> Iterator[tuple[dict[str, str], FigureRow]]:
    """Figures of each mode: over all rows, by tenths, by the user's impressions so far."""
    rows = outcome.rows
    users = data.log.impressions.users[rows]
    labels = data.log.labels[rows]
    before = data.shown_before(rows)
    requests = requests_of(data.ts[rows], users)
    groups = {(OVERALL["by"], OVERALL["group"]): np.ones(len(rows), np.bool_)}
    tenth = np.arange(len(rows)) * _TENTHS // len(rows)
    groups |= {("tenth", str(k + 1)): tenth == k for k in range(_TENTHS)}
    upper = [low for _, low in EXPERIENCE[1:]] + [np.iinfo(np.int64).max]
    for (name, low), high in zip(EXPERIENCE, upper, strict=True):
        groups["user's impressions", name] = (before >= low) & (before < high)
    for mode, logits in outcome.logits.items():
        for (by, group), kept in groups.items():
            key = {"mode": mode, "by": by, "group": group}
            found = figures(logits[kept], labels[kept], users[kept]).to_json()
            if by == OVERALL["by"]:
                found |= list_figures(logits, labels, requests)
            yield key, found
