"""A checkpoint's offsets must be those of the topic that is there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from settings.errors import BrokerError, CheckpointError
from settings.settings import Settings
from tests.trainer.processes import feed, make_topics
from trainer.source import SampleRecord, SampleSource


def test_without_the_topic_it_says_how_to_make_it(cluster: Settings) -> None:
    with pytest.raises(BrokerError, match=r"samples does not exist: start .* `headrace up`"):
        SampleSource(cluster, {})


def test_offsets_that_the_topic_does_not_have_are_refused(cluster: Settings) -> None:
    make_topics(cluster)
    feed(cluster, [b"0", b"1", b"2"])
    refused: list[tuple[Mapping[int, int], str]] = [
        ({0: 4}, r"at record 4 of partition 0 .* holds 0 to 3: .*`headrace reset`"),
        ({0: 3, 1: 0}, r"partition 1 .* no such partition: .*`headrace reset`"),
    ]
    for offsets, message in refused:
        with pytest.raises(CheckpointError, match=message):
            SampleSource(cluster, offsets)
    source = SampleSource(cluster, {0: 1})
    found: list[SampleRecord] = []
    while len(found) < 2:
        found += source.poll(100)
    source.close()
    assert [(r.offset, r.value) for r in found] == [(1, b"1"), (2, b"2")]
    assert source.offsets == {0: 3}
