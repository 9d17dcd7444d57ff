"""The order of processing depends on the records alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.samples import Action, Shown
from trainer.arrived import Arrived
from trainer.watermark_order import Recent, WatermarkOrder

Message = Shown | Action


def shown(at: int, request: str = "r", item: str = "a", user: str = "u") -> Shown:
    return Shown(
        shown_at=at,
        request_id=request,
        user_id=user,
        item_id=item,
        ts=at,
        features=None,
        impression_at=(0, 0),
    )


def action(at: int, request: str = "r", item: str = "a", user: str = "u") -> Action:
    return Action(
        action_at=at,
        request_id=request,
        user_id=user,
        item_id=item,
        ts=at,
        action="click",
        action_ts=at,
        label=1,
        weight=1.0,
        impression_at=(0, 0),
        click_at=(0, 0),
    )


def add(order: WatermarkOrder, partition: int, offset: int, message: Message) -> None:
    order.add(Arrived(partition, offset, b"", message))


def released(order: WatermarkOrder) -> list[Message]:
    return [arrived.message for arrived in order.release()]


def key(one: Message) -> tuple[int, int, str, str, str]:
    return one.at, isinstance(one, Shown), one.request_id, one.item_id, one.user_id


places = (
    st.integers(0, 30),
    st.sampled_from(["r1", "r2", "r10", ""]),
    st.sampled_from(["a", "b", "é"]),
    st.sampled_from(["u", "v"]),
)
messages: st.SearchStrategy[Message] = st.builds(shown, *places) | st.builds(action, *places)


@dataclass(frozen=True)
class Arrival:
    """A record of one partition: shown, an action or a mark."""

    partition: int
    offset: int
    message: Message | None = None
    watermark: int = 0


def partition_log(partition: int, some: list[Message], slack: list[int]) -> list[Arrival]:
    """A partition's records: messages a little out of order, with marks that are true."""
    shuffled = sorted(zip(some, slack, strict=False), key=lambda pair: pair[0].at + pair[1])
    records: list[Arrival] = []
    rest = [one for one, _ in shuffled]
    for i, (one, _) in enumerate(shuffled):
        records.append(Arrival(partition, len(records), message=one))
        later = [r.at for r in rest[i + 1 :]]
        watermark = (min(later) - 1) if later else 1_000
        records.append(Arrival(partition, len(records), watermark=watermark))
    if not records:
        records.append(Arrival(partition, 0, watermark=1_000))
    return records


def interleave(logs: list[list[Arrival]], seed: int) -> list[Arrival]:
    """Any interleaving that keeps the order inside each partition."""
    rng = random.Random(seed)
    left = [list(log) for log in logs]
    out = []
    while any(left):
        out.append(rng.choice([log for log in left if log]).pop(0))
    return out


def run(arrivals: list[Arrival], *, release_every: int = 1) -> list[Message]:
    order = WatermarkOrder([0, 1], remember=1000)
    out: list[Message] = []
    for i, arrival in enumerate(arrivals):
        if arrival.message is None:
            order.advance(arrival.partition, arrival.watermark)
        else:
            add(order, arrival.partition, arrival.offset, arrival.message)
        if i % release_every and i != len(arrivals) - 1:
            continue
        out += released(order)
    assert order.behind == 0
    assert len(order) == order.impressions == 0
    return out


logs = st.builds(
    lambda first, second, slack: [partition_log(0, first, slack), partition_log(1, second, slack)],
    first=st.lists(messages, max_size=25),
    second=st.lists(messages, max_size=25),
    slack=st.lists(st.integers(0, 8), min_size=25, max_size=25),
)


@given(logs, st.integers(0, 99), st.integers(1, 7))
def test_the_order_does_not_depend_on_arrival(
    logs: list[list[Arrival]], seed: int, every: int
) -> None:
    assert run(interleave(logs, seed)) == run(interleave(logs, seed + 1), release_every=every)


@given(logs)
def test_every_identity_is_released_once_in_order(logs: list[list[Arrival]]) -> None:
    out = run(interleave(logs, 0))
    assert out == sorted(out, key=key)
    found = [(type(r), r.request_id, r.user_id, r.item_id) for r in out]
    assert len(found) == len(set(found))
    sent = [a.message for log in logs for a in log if a.message is not None]
    assert set(found) == {(type(r), r.request_id, r.user_id, r.item_id) for r in sent}


def test_a_silent_partition_holds_back_the_rest() -> None:
    order = WatermarkOrder([0, 1], remember=10)
    add(order, 0, 0, shown(5))
    order.advance(0, 100)
    assert released(order) == []
    order.advance(1, 4)
    assert released(order) == []
    order.advance(1, 5)
    assert [r.item_id for r in released(order)] == ["a"]


def test_at_one_time_actions_come_first_then_request_then_item() -> None:
    order = WatermarkOrder([0], remember=10)
    some: list[Message] = [shown(7, "r2"), shown(7, "r10", "b"), shown(7, "r10"), action(7, "r9")]
    for offset, message in enumerate(some):
        add(order, 0, offset, message)
    order.advance(0, 7)
    assert [(r.request_id, r.item_id) for r in released(order)] == [
        ("r9", "a"),
        ("r10", "a"),
        ("r10", "b"),
        ("r2", "a"),
    ]


def test_a_mark_that_goes_back_changes_nothing() -> None:
    order = WatermarkOrder([0], remember=10)
    order.advance(0, 50)
    order.advance(0, 10)
    assert order.watermark == 50


def test_a_repeated_record_is_dropped_and_a_repeated_impression_counted() -> None:
    order = WatermarkOrder([0], remember=10)
    for offset in range(3):
        add(order, 0, offset, shown(7))
    add(order, 0, 3, action(8))
    add(order, 0, 4, action(8))
    order.advance(0, 8)
    assert [type(m) for m in released(order)] == [Shown, Action]
    add(order, 0, 5, shown(9))
    order.advance(0, 9)
    assert released(order) == []
    assert order.repeated == 3


def test_a_record_behind_the_watermark_is_released_and_counted() -> None:
    order = WatermarkOrder([0], remember=10)
    order.advance(0, 100)
    assert released(order) == []
    add(order, 0, 0, shown(7))
    assert order.behind == 1
    assert len(released(order)) == 1


def test_pending_records_survive_a_restore() -> None:
    order = WatermarkOrder([0, 1], remember=10)
    add(order, 0, 3, shown(9, "r9"))
    add(order, 1, 5, action(2, "r2"))
    order.advance(0, 4)
    order.advance(1, 1)
    assert released(order) == []
    again = WatermarkOrder([0, 1], remember=10)
    again.restore(order.watermarks, order.released, order.pending())
    again.recent.load_state(order.recent.state())
    assert (again.watermark, again.released, len(again), again.behind) == (1, 1, 2, 0)
    assert again.impressions == 1
    again.advance(1, 9)
    again.advance(0, 9)
    assert [r.request_id for r in released(again)] == ["r2", "r9"]


def test_a_restore_in_the_middle_of_a_release_loses_nothing() -> None:
    order = WatermarkOrder([0], remember=10)
    for offset in range(4):
        add(order, 0, offset, shown(offset, f"r{offset}"))
    order.advance(0, 10)
    release = order.release()
    first = [next(release).message, next(release).message]
    again = WatermarkOrder([0], remember=10)
    again.restore(order.watermarks, order.released, order.pending())
    again.recent.load_state(order.recent.state())
    assert [r.request_id for r in [*first, *released(again)]] == ["r0", "r1", "r2", "r3"]
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
    [
        (("ab", "c", "d"), ("a", "bc", "d")),
        (("a", "b", "cd"), ("a", "bc", "d")),
        (("a", "b", "c"), ("a", "b", "c", "")),
        (("1:1", "a"), ("1", "1:a")),
    ],
)
def test_identities_that_join_to_the_same_text_differ(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    recent = Recent(10)
    assert recent.add(*one)
    assert recent.add(*other)
