"""How far the features that were served lie from those that were trained on.

For a share of its requests (``serving.features_logged_share``) the server logs the user's features
as it read them (``features`` of the rankings); the job puts the features as of the impression into
the sample. They differ where an event had not reached the online store when the request came, and
windowed ones by what had left the window since the user's last event: rows are compared as they
were read, before :mod:`features.model_inputs` empties a window that is over. One pair a
request, feature by feature::

    python -m features.consistency .headrace/settings.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson

from features.declaration import Declaration, Streaming
from features.declared import declared_features
from features.samples import Shown, sample_decoder
from settings.errors import HeadraceError
from settings.settings import Settings
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import RANKINGS, SAMPLES

NEWEST_RECORDS = 200_000


@dataclass(frozen=True, slots=True)
class FeatureDifference:
    """How one feature was served against how it was trained.

    Attributes:
        name: of the feature.
        pairs: requests compared.
        share: part of them in which the two differ at all.
        mean: mean absolute difference over all pairs, in the feature's own unit; for a list, the
            part of the items of both that only one has.
        largest: the largest such difference.
    """

    name: str
    pairs: int
    share: float
    mean: float
    largest: float


class Consistency:
    """Sums up pairs of served and trained features.

    Args:
        log_declaration: says which features there are.

    Example:
        >>> from features.logs.movielens_features import MOVIELENS
        >>> from features.samples import features_type
        >>> trained = features_type(MOVIELENS)(9, 6, 7.5, 1, 5, ("a", "b"), *[0] * 7)
        >>> found = Consistency(MOVIELENS)
        >>> found.add({"user_clicks": 5, "user_liked": ["a"]}, trained)
        >>> found.add({"user_clicks": 6, "user_liked": ["a", "b"]}, trained)
        >>> [(d.name, d.pairs, d.share, d.mean) for d in found.differences()]
        [('user_clicks', 2, 0.5, 0.5), ('user_liked', 2, 0.5, 0.25)]
    """

    def __init__(self, log_declaration: Declaration) -> None:
        self._features = log_declaration.streaming
        self._found: dict[str, list[tuple[bool, float]]] = {}

    def add(self, served: Mapping[str, Any], trained: object) -> None:
        """Compare what the server used with ``sample.features`` of the same request."""
        for feature in self._features:
            if feature.name in served:
                one = _compared(feature, served[feature.name], getattr(trained, feature.name))
                self._found.setdefault(feature.name, []).append(one)

    def differences(self) -> list[FeatureDifference]:
        """One entry for each feature that was served, in the declaration's order."""
        made = []
        for name in (f.name for f in self._features if f.name in self._found):
            found = self._found[name]
            sizes = [size for _, size in found]
            made.append(
                FeatureDifference(
                    name=name,
                    pairs=len(found),
                    share=sum(differs for differs, _ in found) / len(found),
                    mean=sum(sizes) / len(found),
                    largest=max(sizes),
                )
            )
        return made


def _compared(feature: Streaming, served: Any, trained: Any) -> tuple[bool, float]:  # noqa: ANN401 - values are of the feature's own type
    if feature.aggregate == "recent_items":
        a, b = set(served), set(trained)
        return list(served) != list(trained), len(a ^ b) / max(1, len(a | b))
    return served != trained, abs(served - trained)


def measure(
    settings: Settings, log_declaration: Declaration, newest: int = NEWEST_RECORDS
) -> list[FeatureDifference]:
    """Compare the requests that logged their features with their samples.

    Args:
        settings: where the broker is.
        log_declaration: of the log.
        newest: how many records of each partition are looked at, from the end.

    Returns:
        One entry a feature; empty if no request with logged features has a sample yet.

    Raises:
        BrokerError: no broker.
        EventError: samples of another declaration.
    """
    served: dict[str, Mapping[str, Any]] = {}
    for value in _newest(settings, RANKINGS, newest):
        ranking = msgspec.json.decode(value, type=_Logged)
        if ranking.features is not None:
            served[ranking.request_id] = ranking.features
    found = Consistency(log_declaration)
    decode = sample_decoder(log_declaration)
    for value in _newest(settings, SAMPLES, newest) if served else ():
        sample = decode(value)
        if isinstance(sample, Shown) and sample.request_id in served:
            found.add(served.pop(sample.request_id), sample.features)
    return found.differences()


class _Logged(msgspec.Struct, frozen=True):
    request_id: str
    features: dict[str, Any] | None = None


def _newest(settings: Settings, name: str, count: int) -> Iterator[bytes]:
    records = read_span(settings, *span(settings, [name], newest=count))
    return (record.value for record in records if record.value is not None)


def main(settings: Settings) -> None:
    """Print the differences as JSON."""
    found = measure(settings, declared_features(settings))
    print(orjson.dumps([asdict(d) for d in found], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    try:
        main(Settings.read(Path(sys.argv[1])))
    except HeadraceError as error:
        sys.exit(f"features.consistency: {error}")
