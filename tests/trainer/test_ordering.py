"""The order of learning and the cut of batches depend on the samples alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ordering import Batcher, FrontierOrder, Recent


@dataclass(frozen=True)
class Row:
    closed_ts: int
    request_id: str
    item_id: str
    user_id: str = "u"


def key(row: Row) -> tuple[int, str, str, str]:
    return row.closed_ts, row.request_id, row.item_id, row.user_id


rows = st.builds(
    Row,
    closed_ts=st.integers(0, 30),
    request_id=st.sampled_from(["r1", "r2", "r10", ""]),
    item_id=st.sampled_from(["a", "b", "é"]),
    user_id=st.sampled_from(["u", "v"]),
)


@dataclass(frozen=True)
class Arrival:
    """A record of one partition: a sample or a mark."""

    partition: int
    offset: int
    row: Row | None = None
    frontier: int = 0


def partition_log(partition: int, samples: list[Row], slack: list[int]) -> list[Arrival]:
    """A partition's records: samples a little out of order, with marks that are true."""
    shuffled = sorted(
        zip(samples, slack, strict=False), key=lambda pair: pair[0].closed_ts + pair[1]
    )
    records: list[Arrival] = []
    rest = [row for row, _ in shuffled]
    for i, (row, _) in enumerate(shuffled):
        records.append(Arrival(partition, len(records), row=row))
        later = [r.closed_ts for r in rest[i + 1 :]]
        frontier = (min(later) - 1) if later else 1_000
        records.append(Arrival(partition, len(records), frontier=frontier))
    if not records:
        records.append(Arrival(partition, 0, frontier=1_000))
    return records


def interleave(logs: list[list[Arrival]], seed: int) -> list[Arrival]:
    """Any interleaving that keeps the order inside each partition."""
    rng = random.Random(seed)
    left = [list(log) for log in logs]
    out = []
    while any(left):
        out.append(rng.choice([log for log in left if log]).pop(0))
    return out


# width of the buckets, and from when on
Span = tuple[int | None, int]


def run(
    arrivals: list[Arrival], limit: int, span: Span, *, release_every: int = 1
) -> list[list[Row]]:
    order: FrontierOrder[Row] = FrontierOrder([0, 1], remember=1000)
    batcher: Batcher[Row] = Batcher(limit, *span)
    batches: list[list[Row]] = []
    for i, arrival in enumerate(arrivals):
        if arrival.row is None:
            order.advance(arrival.partition, arrival.frontier)
        else:
            order.add(arrival.partition, arrival.offset, arrival.row)
        if i % release_every and i != len(arrivals) - 1:
            continue
        for row in order.release():
            batches.extend(batcher.add(row))
        batches.extend(batcher.close(order.frontier))
    assert order.behind == 0
    return [*batches, batcher.open]


logs = st.builds(
    lambda first, second, slack: [partition_log(0, first, slack), partition_log(1, second, slack)],
    first=st.lists(rows, max_size=25),
    second=st.lists(rows, max_size=25),
    slack=st.lists(st.integers(0, 8), min_size=25, max_size=25),
)
limits = st.integers(1, 6)
spans = st.tuples(st.one_of(st.none(), st.integers(1, 12)), st.integers(0, 30))


@given(logs, limits, spans, st.integers(0, 99), st.integers(1, 7))
def test_batches_do_not_depend_on_arrival(
    logs: list[list[Arrival]], limit: int, span: Span, seed: int, every: int
) -> None:
    one = run(interleave(logs, seed), limit, span)
    other = run(interleave(logs, seed + 1), limit, span, release_every=every)
    assert one == other


@given(logs, limits, spans)
def test_every_identity_is_learnt_once_in_order(
    logs: list[list[Arrival]], limit: int, span: Span
) -> None:
    batches = run(interleave(logs, 0), limit, span)
    learnt = [row for batch in batches for row in batch]
    assert learnt == sorted(learnt, key=key)
    identities = [(r.request_id, r.user_id, r.item_id) for r in learnt]
    assert len(identities) == len(set(identities))
    sent = [a.row for log in logs for a in log if a.row is not None]
    assert set(identities) == {(r.request_id, r.user_id, r.item_id) for r in sent}
    assert all(len(batch) <= limit for batch in batches)
    width, start = span
    for batch in batches:
        if width is not None and any(r.closed_ts >= start for r in batch):
            assert all(r.closed_ts >= start for r in batch)
            assert len({r.closed_ts // width for r in batch}) == 1


def test_a_silent_partition_holds_back_the_rest() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0, 1], remember=10)
    order.add(0, 0, Row(5, "r", "a"))
    order.advance(0, 100)
    assert list(order.release()) == []
    order.advance(1, 4)
    assert list(order.release()) == []
    order.advance(1, 5)
    assert [r.item_id for r in order.release()] == ["a"]


def test_ties_of_closing_time_go_by_request_then_item() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0], remember=10)
    for offset, (request, item) in enumerate([("r2", "a"), ("r10", "b"), ("r10", "a")]):
        order.add(0, offset, Row(7, request, item))
    order.advance(0, 7)
    assert [(r.request_id, r.item_id) for r in order.release()] == [
        ("r10", "a"),
        ("r10", "b"),
        ("r2", "a"),
    ]


def test_a_mark_that_goes_back_changes_nothing() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0], remember=10)
    order.advance(0, 50)
    order.advance(0, 10)
    assert order.frontier == 50


def test_a_repeated_sample_is_dropped_and_counted() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0], remember=10)
    for offset in range(3):
        order.add(0, offset, Row(7, "r", "a"))
    order.advance(0, 7)
    assert len(list(order.release())) == 1
    order.add(0, 3, Row(9, "r", "a"))
    order.advance(0, 9)
    assert list(order.release()) == []
    assert order.repeated == 3


def test_a_sample_behind_the_frontier_is_learnt_and_counted() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0], remember=10)
    order.advance(0, 100)
    list(order.release())
    order.add(0, 0, Row(7, "r", "a"))
    assert order.behind == 1
    assert len(list(order.release())) == 1


def test_pending_samples_survive_a_restore() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0, 1], remember=10)
    order.add(0, 3, Row(9, "r9", "a"))
    order.add(1, 5, Row(2, "r2", "a"))
    order.advance(0, 4)
    order.advance(1, 1)
    assert list(order.release()) == []
    again: FrontierOrder[Row] = FrontierOrder([0, 1], remember=10)
    again.restore(order.frontiers, order.released, order.pending())
    again.recent.load_state(order.recent.state())
    assert (again.frontier, again.released, len(again), again.behind) == (1, 1, 2, 0)
    again.advance(1, 9)
    again.advance(0, 9)
    assert [r.request_id for r in again.release()] == ["r2", "r9"]


def test_a_restore_in_the_middle_of_a_release_loses_nothing() -> None:
    order: FrontierOrder[Row] = FrontierOrder([0], remember=10)
    for offset in range(4):
        order.add(0, offset, Row(offset, f"r{offset}", "a"))
    order.advance(0, 10)
    release = order.release()
    first = [next(release), next(release)]
    again: FrontierOrder[Row] = FrontierOrder([0], remember=10)
    again.restore(order.frontiers, order.released, order.pending())
    again.recent.load_state(order.recent.state())
    assert [r.request_id for r in [*first, *again.release()]] == ["r0", "r1", "r2", "r3"]
    assert (again.behind, again.repeated) == (0, 0)


@given(st.lists(st.text(max_size=3), max_size=40), st.integers(1, 5))
def test_recent_forgets_the_oldest_only(ids: list[str], capacity: int) -> None:
    recent = Recent(capacity)
    window: list[str] = []
    for text in ids:
        assert recent.add("r", "u", text) == (text not in window)
        if text not in window:
            window = [*window, text][-capacity:]
    assert len(recent) == len(window) <= capacity
    again = Recent(capacity)
    again.load_state(recent.state())
    assert all(not again.add("r", "u", text) for text in window)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("ab", "c", "d"), ("a", "bc", "d")), (("a", "b", "cd"), ("a", "bc", "d"))],
)
def test_identities_that_join_to_the_same_text_differ(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    recent = Recent(10)
    assert recent.add(*one)
    assert recent.add(*other)


def test_the_frontier_ends_a_bucket_but_not_too_early() -> None:
    batcher: Batcher[Row] = Batcher(10, 100)
    assert list(batcher.add(Row(250, "r", "a"))) == []
    assert list(batcher.close(298)) == []
    assert [len(b) for b in batcher.close(299)] == [1]
    assert list(batcher.close(10_000)) == []


def test_a_history_is_cut_by_count_until_its_end() -> None:
    batcher: Batcher[Row] = Batcher(3, 100, 1000)
    assert list(batcher.add(Row(250, "r1", "a"))) == []
    assert list(batcher.add(Row(750, "r2", "a"))) == []
    assert list(batcher.close(998)) == []
    assert [len(b) for b in batcher.close(999)] == [2]
    assert list(batcher.add(Row(1000, "r3", "a"))) == []
    assert [len(b) for b in batcher.add(Row(1100, "r4", "a"))] == [1]


def test_without_a_span_only_the_count_ends_a_batch() -> None:
    batcher: Batcher[Row] = Batcher(2, None)
    assert list(batcher.add(Row(1, "r1", "a"))) == []
    assert list(batcher.close(10**15)) == []
    assert [len(b) for b in batcher.add(Row(10**12, "r2", "a"))] == [2]


def test_the_open_batch_survives_a_restore() -> None:
    batcher: Batcher[Row] = Batcher(3, 100)
    list(batcher.add(Row(250, "r1", "a")))
    again: Batcher[Row] = Batcher(3, 100)
    again.restore(batcher.open)
    assert [[r.request_id for r in b] for b in again.add(Row(300, "r2", "a"))] == [["r1"]]
