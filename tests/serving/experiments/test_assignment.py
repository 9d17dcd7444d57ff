from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serving.experiments.assignment import BUCKETS, Assignment, Experiment, Variant
from settings.errors import ConfigurationError

USERS = [str(n) for n in range(20_000)]


def arms(*shares: float) -> tuple[Variant, ...]:
    return tuple(Variant(f"v{i}", "champion", share) for i, share in enumerate(shares))


def variants_of(experiment: Experiment, users: list[str] = USERS) -> list[str | None]:
    return [experiment.assign(user, ts=0).variant for user in users]


@given(st.text(min_size=1, max_size=64))
def test_a_user_always_gets_the_same(user: str) -> None:
    first = Experiment("e", arms(0.5, 0.3, 0.2))
    again = Experiment("e", arms(0.5, 0.3, 0.2))
    assert first.assign(user, ts=1) == again.assign(user, ts=2**50)
    assert 0 <= first.bucket(user) < BUCKETS


def test_the_draw_is_fixed_for_all_time() -> None:
    """Another hash would throw running experiments away: these numbers must never change."""
    experiment = Experiment("demo", arms(1.0), salt="pepper")
    assert [experiment.bucket(u) for u in ("1", "2", "käse", "196")] == PINNED


PINNED = [2106, 7453, 2718, 2196]


def test_shares_come_out_as_written() -> None:
    shares = (0.5, 0.3, 0.15, 0.05)
    got = variants_of(Experiment("e", arms(*shares)))
    seen = [got.count(f"v{i}") for i in range(4)]
    assert stats.chisquare(seen, [s * len(USERS) for s in shares]).pvalue > 0.001


def test_buckets_are_uniform() -> None:
    experiment = Experiment("e", arms(1.0))
    counts = [0] * 100
    for user in USERS:
        counts[experiment.bucket(user) // 100] += 1
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("salts", [("a", "b"), ("exp-1", "exp-2"), ("x", "xx")])
def test_experiments_are_independent(salts: tuple[str, str]) -> None:
    one, two = (variants_of(Experiment("e", arms(0.5, 0.3, 0.2), salt=s)) for s in salts)
    table = [
        [sum(a == x and b == y for a, b in zip(one, two, strict=True)) for y in set(two)]
        for x in sorted({str(x) for x in one})
    ]
    assert stats.chi2_contingency(table).pvalue > 0.001


_SHARES = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.integers(0, BUCKETS // (n + 1)), min_size=n, max_size=n)
)


@given(_SHARES, st.data())
def test_while_shares_grow_users_only_leave_the_control(
    others: list[int], data: st.DataObject
) -> None:
    """The promise of the module: growing shares move users from the control and from nowhere."""
    smaller = [data.draw(st.integers(0, n)) for n in others]

    def layout(sizes: list[int]) -> list[str | None]:
        parts = [(BUCKETS - sum(sizes)) / BUCKETS, *(n / BUCKETS for n in sizes)]
        return variants_of(Experiment("e", arms(*parts)), USERS[:500])

    for before, after in zip(layout(smaller), layout(others), strict=True):
        assert before in {after, "v0"}


def test_propensity_is_the_share() -> None:
    experiment = Experiment("e", arms(0.9, 0.1))
    for user in USERS[:100]:
        got = experiment.assign(user, ts=0)
        assert got.propensity == {"v0": 0.9, "v1": 0.1}[str(got.variant)]


def test_before_its_start_nobody_is_in_it() -> None:
    experiment = Experiment("e", arms(0.5, 0.5), start_ms=1000)
    assert experiment.assign("u", ts=999) == Assignment("champion", None, None)
    assert experiment.assign("u", ts=1000).variant is not None


def test_everyone() -> None:
    assert Experiment.everyone("champion").assign("u", 0) == Assignment("champion", "champion", 1.0)


GOOD = """
name = "e"
start = 2026-11-24T12:00:00Z
[[variants]]
name = "a"
channel = "champion"
share = 0.75
[[variants]]
name = "b"
channel = "frozen"
share = 0.25
"""


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(GOOD)
    experiment = Experiment.read(path, ("champion", "frozen"))
    assert [v.share for v in experiment.variants] == [0.75, 0.25]
    assert experiment.channels == ("champion", "frozen")
    assert experiment.start_ms == 1_795_521_600_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("0.25", "0.3"), "sum to 1"),
        (GOOD.replace("0.25", "0.24999").replace("0.75", "0.75001"), "four decimals"),
        (GOOD.replace("0.25", "1.25"), "share"),
        (GOOD.replace('"b"', '"a"'), "named twice"),
        (GOOD.replace('"frozen"', '"challenger"'), "serving.channels"),
        (GOOD.replace("share", "part"), "part"),
        (GOOD.replace("share = 0.25", ""), "share"),
        (GOOD.replace("Z", ""), "time zone"),
        (GOOD.replace('name = "e"', 'name = ""'), "name"),
        (GOOD + "[", "end of document"),
        ('name = "e"', "variants"),
        ('name = "e"\nvariants = []', "variants"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "e.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        Experiment.read(path, ("champion", "frozen"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"serving\.experiment"):
        Experiment.read(tmp_path / "none.toml", ("champion",))


def test_overlapping_neighbours_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="largest share first"):
        Experiment("e", arms(0.1, 0.1, 0.7, 0.1))
    Experiment("e", arms(0.7, 0.1, 0.1, 0.1))
