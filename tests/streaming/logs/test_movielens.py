"""The readers, on small files made up here: no row of a real log may lie in the repository."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import ConfigurationError, LogFileError
from streaming.events import Click, Impression
from streaming.logs import MovieLens, demo_data, fetch_ml_100k, open_log

T = 900_000_000
# user, film, rating, seconds; not in time order, with a tie and a 3
RATINGS = [(2, 11, 5, T + 2), (1, 12, 4, T), (1, 10, 2, T + 2), (2, 10, 3, T + 1), (2, 12, 1, T)]
# in the log's order: time, user, film; each impression before its click
ORDER = [("i", 1, 12, 0), ("c", 1, 12, 0), ("i", 2, 12, 0), ("i", 1, 10, 2), ("i", 2, 11, 2)]
ORDER += [("c", 2, 11, 2)]


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    lines = ["::".join(map(str, rating)) + "\n" for rating in RATINGS]
    (tmp_path / "ratings.dat").write_text("".join(lines))
    films = "10::Café Días (1988)::Drama\n11::Up::There (1999)::Comedy|Sci-Fi\n"
    (tmp_path / "movies.dat").write_bytes(films.replace("Up::There", "Up").encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::25::7::12345\n2::M::1::0::99999\n")
    return tmp_path


@pytest.fixture
def ml_100k(tmp_path: Path) -> Path:
    lines = ["\t".join(map(str, rating)) + "\n" for rating in RATINGS]
    (tmp_path / "u.data").write_text("".join(lines))
    flags = "|".join("1" if genre in {5, 8} else "0" for genre in range(19))
    film = f"10|Café Días (1988)|01-Jan-1999||http://example.org|{flags}\n"
    (tmp_path / "u.item").write_bytes(film.encode("latin-1"))
    (tmp_path / "u.user").write_text("1|24|F|writer|12345\n2|57|M|other|99999\n")
    return tmp_path


@pytest.fixture
def recbole(tmp_path: Path) -> Path:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    lines = ["\t".join(map(str, rating)) + "\n" for rating in RATINGS]
    (tmp_path / "ml-100k.inter").write_text(header + "".join(lines))
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tCafé Días\t1988\tComedy Drama\n11\tunkonwn\tunkonwn\tunknown\n"
    )
    (tmp_path / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tF\twriter\t12345\n2\t57\tM\tother\t99999\n"
    )
    return tmp_path


def in_short(log: MovieLens, start: int = 0, stop: int | None = None) -> list[object]:
    return [
        (
            "i" if isinstance(event, Impression) else "c",
            int(event.user_id),
            int(event.item_id),
            event.ts // 1000 - T,
        )
        for event in log.events(start, stop)
    ]


def test_a_rating_is_an_impression_and_over_3_a_click(ml_1m: Path) -> None:
    log = MovieLens.ml_1m(ml_1m)
    assert in_short(log) == ORDER
    assert log.count == len(ORDER)
    assert log.span == (T * 1000, (T + 2) * 1000)


def test_a_click_names_its_impression(ml_1m: Path) -> None:
    impression, click = list(MovieLens.ml_1m(ml_1m).events(0, 2))
    assert isinstance(impression, Impression)
    assert isinstance(click, Click)
    assert click.request_id == impression.request_id
    assert click.ts == impression.ts


def test_all_three_forms_give_the_same_events(ml_1m: Path, ml_100k: Path, recbole: Path) -> None:
    # all fixtures share one folder: the form of RecBole comes before that of GroupLens
    both = MovieLens.ml_100k(recbole)
    (recbole / "ml-100k.inter").unlink()
    logs = [both, MovieLens.ml_100k(ml_100k), MovieLens.ml_1m(ml_1m)]
    assert len({tuple(log.events()) for log in logs}) == 1


def test_attributes_of_1m(ml_1m: Path) -> None:
    log = MovieLens.ml_1m(ml_1m)
    cafe, up = log.items()
    assert cafe.attributes == {
        "title": "Café Días (1988)",
        "genres": ["Drama"],
        "year": "1988",
        "decade": "1980s",
    }
    assert up.attributes["genres"] == ["Comedy", "Sci-Fi"]
    assert [user.attributes for user in log.users()] == [
        {"gender": "F", "age": "25", "occupation": "7"},
        {"gender": "M", "age": "1", "occupation": "0"},
    ]


def test_attributes_of_100k_in_both_forms(ml_100k: Path, recbole: Path) -> None:
    from_recbole = MovieLens.ml_100k(recbole)
    (recbole / "ml-100k.inter").unlink()
    from_grouplens = MovieLens.ml_100k(ml_100k)
    for log in (from_recbole, from_grouplens):
        film = next(log.items())
        assert film.attributes["genres"] == ["Comedy", "Drama"]
        # the title's year, not that of the video
        assert film.attributes["decade"] == "1980s"
        ages = [user.attributes["age"] for user in log.users()]
        assert ages == ["18", "56"], "in the classes of 1M"
    unknown = list(from_recbole.items())[1]
    assert "year" not in unknown.attributes


@given(start=st.integers(0, 8), length=st.integers(0, 8))
def test_events_are_numbered(start: int, length: int) -> None:
    import numpy as np

    log = MovieLens("x", np.array(RATINGS, dtype=np.int64), [], [])
    assert in_short(log, start, start + length) == ORDER[start : start + length]


def test_index_at(ml_1m: Path) -> None:
    log = MovieLens.ml_1m(ml_1m)
    seconds = [event[3] for event in ORDER]
    for second in (-1, 0, 1, 2):
        expected = next(i for i, value in enumerate(seconds) if value >= second)
        assert log.index_at((T + second) * 1000) == expected
    assert log.index_at((T + 3) * 1000) == log.count


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("5::12::5::9000", r"line 6 \(the last line: was the file cut short\?\), column timestamp"),
        ("5::12::5", "line 6 .*3 columns instead of 4"),
        ("5::12::7::900000000\n1::1::5::900000000", r"line 6, column rating: '7'"),
        ("5::x::5::900000000", "column movie id: 'x'"),
        ("5::12::5::900000000::1", "5 columns instead of 4"),
        ("-5::12::5::900000000", "column user id: '-5'"),
        ("5::12::5::900000000000", "column timestamp"),
        # read as numbers they would lose their ends: another rating, the id of another film
        ("5::12::3.5::900000000", "column rating: '3.5'"),
        ("5::012::5::900000000", "column movie id: '012'"),
        ("5::1e1::5::900000000", "column movie id: '1e1'"),
    ],
)
def test_a_broken_line_is_named(ml_1m: Path, line: str, complaint: str) -> None:
    path = ml_1m / "ratings.dat"
    path.write_text(path.read_text() + line)
    with pytest.raises(LogFileError, match=complaint) as caught:
        MovieLens.ml_1m(ml_1m)
    assert str(path) in str(caught.value)


def test_a_truncated_catalogue_is_named(ml_1m: Path) -> None:
    path = ml_1m / "movies.dat"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LogFileError, match=r"movies\.dat, line 2: 2 columns instead of 3"):
        MovieLens.ml_1m(ml_1m)


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("movies.dat", "abc::A (1990)::Drama", "line 1, column movie id: 'abc'"),
        ("movies.dat", "::A (1990)::Drama", "line 1, column movie id: ''"),
        ("users.dat", "1::X::25::7::12345", "line 1, column gender: 'X' is not F or M"),
        ("users.dat", "1::F::young::7::12345", "line 1, column age: 'young'"),
        ("users.dat", "1::F::25::job::12345", "line 1, column occupation: 'job'"),
    ],
)
def test_a_broken_catalogue_of_1m_is_named(
    ml_1m: Path, file: str, line: str, complaint: str
) -> None:
    (ml_1m / file).write_text(line + "\n")
    with pytest.raises(LogFileError, match=complaint):
        MovieLens.ml_1m(ml_1m)


@pytest.mark.parametrize(
    ("date", "flag", "complaint"),
    [
        ("garb", "0", "column release date: 'garb' is not a date"),
        ("01-Jan-1999", "x", "column unknown: 'x' is not 0 or 1"),
    ],
)
def test_a_broken_film_of_100k_is_named(
    ml_100k: Path, date: str, flag: str, complaint: str
) -> None:
    flags = "|".join([flag, *["0"] * 18])
    (ml_100k / "u.item").write_text(f"10|A|{date}||url|{flags}\n")
    with pytest.raises(LogFileError, match=complaint):
        MovieLens.ml_100k(ml_100k)


def test_a_missing_or_empty_file_is_named(ml_1m: Path) -> None:
    (ml_1m / "ratings.dat").write_text("")
    with pytest.raises(LogFileError, match=r"ratings\.dat holds no rows"):
        MovieLens.ml_1m(ml_1m)
    with pytest.raises(LogFileError, match=r"u\.data is missing: is .* the folder"):
        open_log("ml-100k", ml_1m)


def test_an_age_that_is_no_number_is_named(ml_100k: Path) -> None:
    (ml_100k / "u.user").write_text("1|young|F|writer|12345\n")
    with pytest.raises(LogFileError, match=r"u\.user, line 1, column age: 'young'"):
        MovieLens.ml_100k(ml_100k)


def test_an_unknown_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose ml-100k, ml-1m"):
        open_log("ml-20m", tmp_path)


class TestDemoData:
    """The fetching, with a package index that is a folder here."""

    @pytest.fixture(autouse=True)
    def _known_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in demo_data._SHA256}
        monkeypatch.setattr(demo_data, "_SHA256", hashes)

    def test_files_that_are_there_are_checked_and_kept(self, tmp_path: Path) -> None:
        for name in demo_data._SHA256:
            (tmp_path / name).write_text(name)
        assert fetch_ml_100k(tmp_path) == tmp_path
        (tmp_path / "ml-100k.user").write_text("other")
        with pytest.raises(LogFileError, match=r"ml-100k\.user is not the file .* delete"):
            fetch_ml_100k(tmp_path)

    def test_without_an_index_the_cure_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UV_OFFLINE", "1")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        with pytest.raises(LogFileError, match=r"Is the package index reachable\?.*--path DIR"):
            fetch_ml_100k(tmp_path / "new")
        assert list((tmp_path / "new").iterdir()) == [], "nothing half done is left"

    def test_files_of_the_package_are_moved_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def install(target: Path) -> None:
            inside = target / demo_data._INSIDE
            inside.mkdir(parents=True)
            for name in demo_data._SHA256:
                (inside / name).write_text(name)

        monkeypatch.setattr(demo_data, "_install", install)
        folder = fetch_ml_100k(tmp_path / "new")
        assert sorted(path.name for path in folder.iterdir()) == sorted(demo_data._SHA256)
