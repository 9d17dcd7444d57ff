"""The catalogue: fields as declared, on a real broker the newest record of each id."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalogue import Catalogue, CatalogueReader
from features.logs.movielens_features import MOVIELENS
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import Entity
from streaming.kafka.client import create_topics
from streaming.kafka.writer import Writer

_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["gender", "age", "genres", "decade", "other"]), st.text(max_size=5)
)


def _entity(id_: str, **attributes: str | list[str]) -> bytes:
    return msgspec.json.encode(Entity(id=id_, attributes=attributes))


def _produce(settings: Settings, topic: str, *records: tuple[str, bytes | None]) -> None:
    with Writer(settings, bulk=False) as out:
        for key, value in records:
            out.send(settings.topic(topic), 0, key.encode(), value)


@given(attributes=_ATTRIBUTES)
def test_the_declared_fields_are_kept_in_their_order(attributes: dict[str, str]) -> None:
    catalogue = Catalogue(MOVIELENS)
    catalogue.apply("user", b"u", _entity("u", **attributes))
    expected = (attributes.get("gender", ""), attributes.get("age", ""), "")
    assert catalogue.rows("user", ["u", "v"]) == [expected, ("", "", "")]


def test_a_null_value_deletes() -> None:
    catalogue = Catalogue(MOVIELENS)
    catalogue.apply("item", b"i", _entity("i", genres=["War"], decade="1990"))
    assert catalogue.rows("item", ["i"]) == [(("War",), "1990")]
    assert catalogue.ids("item") == ["i"]
    catalogue.apply("item", b"i", None)
    assert catalogue.rows("item", ["i"]) == [((), "")]
    assert len(catalogue) == 0


def test_attributes_as_of_a_time() -> None:
    """A sample is learnt with what held when it asked, whenever it is learnt."""
    catalogue = Catalogue(MOVIELENS, history=True)
    for at, decade in ((100, "1980"), (200, "1990"), (200, "1990"), (300, "2000")):
        catalogue.apply("item", b"i", _entity("i", decade=decade), at)
    catalogue.apply("item", b"other", _entity("other", decade="1970"), 500)
    catalogue.apply("item", b"i", None, 400)
    # the oldest record counts from the beginning
    times = [0, 100, 199, 200, 299, 300, 399, 400]
    decades = [row[1] for row in catalogue.rows("item", ["i"] * len(times), times)]
    assert decades == ["1980"] * 3 + ["1990"] * 2 + ["2000"] * 2 + [""]
    assert catalogue.rows("item", ["other", "unknown"], [0, 0]) == [((), "1970"), ((), "")]
    assert catalogue.rows("item", ["i"]) == [((), "")]
    assert catalogue.take_changed("item") == {"i"}
    assert catalogue.take_changed("item") == set()


def test_what_was_deleted_is_known() -> None:
    catalogue = Catalogue(MOVIELENS)
    for id_ in ("i", "j"):
        catalogue.apply("item", id_.encode(), _entity(id_))
    catalogue.apply("item", b"i", None)
    catalogue.apply("item", b"never there", None)
    assert catalogue.deleted("item") == {"i", "never there"}
    assert (catalogue.knows("item", "i"), catalogue.knows("item", "j")) == (False, True)
    before = catalogue.deletions
    catalogue.apply("item", b"i", _entity("i"))
    assert catalogue.deleted("item") == {"never there"}
    assert catalogue.deletions > before


def test_a_long_history_is_bounded() -> None:
    catalogue = Catalogue(MOVIELENS, history=True)
    for at in range(1_000):
        catalogue.apply("item", b"i", _entity("i", decade=str(at)), at)
    times = [0, 500, 990, 999]
    found = [row[1] for row in catalogue.rows("item", ["i"] * len(times), times)]
    assert found == ["984", "984", "990", "999"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"{", "not an entity"),
        (b'{"id":"i"}', "attributes"),
        (b'{"id":5,"attributes":{}}', "id"),
        (b'{"id":"i","attributes":{"genres":"War"}}', "'genres' of a item must be a list"),
        (b'{"id":"i","attributes":{"decade":["1990"]}}', "'decade' of a item must be one text"),
    ],
)
def test_a_record_of_the_wrong_form_is_refused_and_changes_nothing(value: bytes, says: str) -> None:
    catalogue = Catalogue(MOVIELENS)
    catalogue.apply("item", b"i", _entity("i", genres=["War"], decade="1990"))
    with pytest.raises(EventError, match=says):
        catalogue.apply("item", b"i", value)
    assert catalogue.rows("item", ["i"]) == [(("War",), "1990")]


def test_the_reader_reads_to_the_end_and_follows(cluster: Settings) -> None:
    create_topics(cluster)
    _produce(cluster, "items", *[(str(i), _entity(str(i), decade="1980")) for i in range(300)])
    _produce(cluster, "items", ("7", _entity("7", decade="1990")), ("8", b"no entity"))
    catalogue = Catalogue(MOVIELENS)
    with CatalogueReader(cluster, catalogue) as reader:
        assert reader.read_to_end() == 302
        assert catalogue.rows("item", ["6", "7", "8"]) == [((), "1980"), ((), "1990"), ((), "1980")]
        assert sum(reader.offsets.values()) == 302
        # a new id makes it look, once; what came for a known id meanwhile is taken in too
        _produce(cluster, "users", ("u", _entity("u", gender="F")))
        reader.ensure("user", ["u", "nobody"])
        assert catalogue.rows("user", ["u"]) == [("F", "", "")]
        assert catalogue.unknown("user", ["u", "nobody"]) == {"nobody"}
        at = reader.offsets
        _produce(cluster, "users", ("nobody", _entity("nobody", gender="M")))
        reader.ensure("user", ["u", "nobody"])
        assert reader.offsets == at
        while not reader.poll(100):
            pass
        assert catalogue.rows("user", ["nobody"]) == [("M", "", "")]


def test_a_checkpoint_s_offsets_give_the_catalogue_of_then(cluster: Settings) -> None:
    create_topics(cluster)
    _produce(cluster, "items", ("7", _entity("7", decade="1980")))
    with CatalogueReader(cluster, Catalogue(MOVIELENS)) as reader:
        reader.read_to_end()
        then = reader.offsets
    later = [(str(i), _entity(str(i))) for i in range(8, 20)]
    _produce(cluster, "items", *later)
    catalogue = Catalogue(MOVIELENS)
    with CatalogueReader(cluster, catalogue) as reader:
        reader.read_to(then)
        assert catalogue.rows("item", ["7"]) == [((), "1980")]


@pytest.mark.parametrize("value", [b'{"id":"\xff"}', b"[" * 50_000, b"", b"7"])
def test_bytes_that_are_no_entity_are_refused_and_nothing_else(value: bytes) -> None:
    made = Catalogue(MOVIELENS)
    with pytest.raises(EventError, match="not an entity"):
        made.apply("item", b"7", value)
    made.apply("item", b"\xff", None)
    assert not made.ids("item")
