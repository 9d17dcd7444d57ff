"""The reader of Alibaba's display ads, on small files with the quirks of the published ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import LogFileError
from streaming.events import Impression
from streaming.logs import AliDisplayAds, behaviours
from streaming.logs import chunks as chunks_module

T = 1_494_137_644
HEADER = "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
# not sorted by time; ties; the last two rows are the same
SHOWN = [
    (581738, T, 1, "430548_1007", 1, 0),
    (449818, T + 9, 3, "430548_1007", 0, 1),
    (581738, T, 4, "430539_1007", 0, 1),
    (7, T - 60, 4, "430539_1007", 1, 0),
    (7, T - 60, 4, "430539_1007", 1, 0),
]
ADS = """adgroup_id,cate_id,campaign_id,customer,brand,price
1,6406,83237,1,95471,170.0
3,6406,83237,1,NULL,99999999.0
4,6406,83237,1,87331,0.01
"""
USERS = """userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,\
occupation,new_user_class_level \n"""
USERS += "7,0,5,2,5,,3,0,3\n581738,0,13,1,5,1,3,0,\n"
BEHAVIOURS = f"""user,time_stamp,btag,cate,brand
558157,{T},pv,6250,91286
558157,-1,cart,6250,91286
7,2000000000,fav,6250,91286
7,{T + 1},buy,8,NULL
"""


def write_ali(folder: Path, tail: str = "") -> Path:
    lines = "".join(f"{','.join(map(str, row))}\n" for row in SHOWN)
    (folder / "raw_sample.csv").write_text(HEADER + lines + tail)
    (folder / "ad_feature.csv").write_text(ADS)
    (folder / "user_profile.csv").write_text(USERS)
    (folder / "behavior_log.csv").write_text(BEHAVIOURS)
    return folder


def test_impressions_and_clicks_in_time_order(tmp_path: Path) -> None:
    log = AliDisplayAds(write_ali(tmp_path))
    shown = [
        (event.request_id, event.context) for event in log.events() if isinstance(event, Impression)
    ]
    assert shown == [
        (f"7-{T - 60}-4", {"pid": "430539_1007"}),
        (f"7-{T - 60}-4.2", {"pid": "430539_1007"}),
        (f"581738-{T}-1", {"pid": "430548_1007"}),
        (f"581738-{T}-4", {"pid": "430539_1007"}),
        (f"449818-{T + 9}-3", {"pid": "430548_1007"}),
    ]
    clicks = [(e.event_id, e.ts) for e in log.events() if not isinstance(e, Impression)]
    assert clicks == [(f"581738-{T}-4", T * 1000), (f"449818-{T + 9}-3", (T + 9) * 1000)]


def test_ads_and_profiles_leave_out_what_is_not_known(tmp_path: Path) -> None:
    log = AliDisplayAds(write_ali(tmp_path))
    first, second, third = log.items()
    assert first.id == "1"
    assert first.attributes == {
        "cate_id": "6406",
        "campaign_id": "83237",
        "customer": "1",
        "brand": "95471",
        "price": "128",
    }
    assert "brand" not in second.attributes
    assert [ad.attributes["price"] for ad in (second, third)] == ["65536", "0"]
    seven, other = log.users()
    assert seven.id == "7"
    assert "pvalue_level" not in seven.attributes
    assert seven.attributes["new_user_class_level"] == "3"
    assert "new_user_class_level" not in other.attributes


def test_the_impressions_alone_are_enough_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_ali(tmp_path)
    for name in ("ad_feature.csv", "user_profile.csv", "behavior_log.csv"):
        (tmp_path / name).unlink()
    log = AliDisplayAds(tmp_path)
    assert log.count == len(SHOWN) + 2
    assert [*log.items(), *log.users()] == []
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert ["ad_feature.csv is missing" in warnings[0], "user_pro" in warnings[1]] == [True, True]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1,1494137644,1,430548_1007,1", r"line 7 \(the last line: was the file cut .*5 columns"),
        ("1,1494137644,1,430548_1007,0,0\n", "line 7 .*column nonclk: '0' is not the opposite of"),
        ("1,1494137644,1,430548_1007,1,1\n", "column nonclk: '1' is not the opposite of clk"),
        ("1,1494137644,1,430548_1007,0,2\n", "column clk: '2' is not a whole number from 0 to 1"),
        ("1,1494137644000,1,430548_1007,1,0\n", "column time_stamp: '1494137644000' is not a"),
        ("1,-5,1,430548_1007,1,0\n", "column time_stamp: '-5' is not a whole number"),
        ("1,1494137644,NULL,430548_1007,1,0\n", "column adgroup_id: 'NULL' is not a number"),
        ('"1",1494137644,1,430548_1007,1,0\n', "column user: '\"1\"' is not a number"),
        ("1,1494137644,1,,1,0\n", "column pid: '' is not a place"),
        ("1,1494137644,1,430548_1007,1,0,\n", "line 7 .*7 columns instead of 6"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    write_ali(tmp_path, line)
    with pytest.raises(LogFileError, match=complaint) as caught:
        AliDisplayAds(tmp_path)
    assert str(tmp_path / "raw_sample.csv") in str(caught.value)


def test_a_line_is_named_far_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "_BLOCK", 256)
    good = f"1,{T},1,430548_1007,1,0\n"
    write_ali(tmp_path, good * 20 + "x" + good + good)
    with pytest.raises(LogFileError, match=r"line 27, column user: 'x1'"):
        AliDisplayAds(tmp_path)
    write_ali(tmp_path, good * 20 + "," + good + good)
    with pytest.raises(LogFileError, match="line 27: 7 columns instead of 6"):
        AliDisplayAds(tmp_path)
    profiles = USERS + "1,0,5,2,5,,3,0,3\n" * 20 + "1,0,5,2,x,,3,0,3\n8,0,5,2,5,,3,0,3\n"
    (write_ali(tmp_path) / "user_profile.csv").write_text(profiles)
    with pytest.raises(LogFileError, match=r"line 24, column age_level: 'x'"):
        list(AliDisplayAds(tmp_path).users())


def test_a_wrong_header_is_named(tmp_path: Path) -> None:
    for name in ("raw_sample.csv", "ad_feature.csv", "user_profile.csv"):
        path = write_ali(tmp_path) / name
        path.write_text(path.read_text().split("\n", 1)[1])
        with pytest.raises(LogFileError, match=f"{name}, line 1: the header is .* instead of"):
            AliDisplayAds(tmp_path)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match=r"raw_sample\.csv is missing: is .* the folder"):
        AliDisplayAds(tmp_path)
    for content in ("", HEADER, HEADER.strip()):
        (tmp_path / "raw_sample.csv").write_text(content)
        with pytest.raises(LogFileError, match=r"raw_sample\.csv holds no rows"):
            AliDisplayAds(tmp_path)


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "1e", "cheap"])
def test_a_price_that_is_none_is_named(tmp_path: Path, price: str) -> None:
    (write_ali(tmp_path) / "ad_feature.csv").write_text(f"{ADS}9,1,1,1,1,{price}\n")
    with pytest.raises(LogFileError, match=f"line 5 .*column price: '{price}' is not a price"):
        list(AliDisplayAds(tmp_path).items())


def test_behaviours_leave_out_times_that_cannot_be(tmp_path: Path) -> None:
    (rows,) = behaviours(write_ali(tmp_path) / "behavior_log.csv")
    assert rows.left_out == 2
    assert rows.ts.tolist() == [T * 1000, (T + 1) * 1000]
    columns = (rows.users, rows.kinds, rows.categories, rows.brands)
    assert [[column.texts[code] for code in column.codes] for column in columns] == [
        ["558157", "7"],
        ["pv", "buy"],
        ["6250", "8"],
        ["91286", "NULL"],
    ]


def test_behaviours_come_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "_BLOCK", 64)
    path = write_ali(tmp_path) / "behavior_log.csv"
    parts = list(behaviours(path))
    assert len(parts) > 1
    assert sum(part.left_out + len(part.ts) for part in parts) == 4
    path.write_text(f"{BEHAVIOURS}7,{T},sold,8,1\n")
    with pytest.raises(LogFileError, match=r"line 6 .*column btag: 'sold' is not one of pv, cart"):
        list(behaviours(path))


def test_real_behaviours_can_be_read() -> None:
    path = Path(__file__).parents[3] / ".." / "shared" / "data" / "ali-display-ads"
    if not path.is_dir():
        pytest.skip("the real log is not on this machine")
    (rows,) = behaviours(path / "behavior_log.csv")
    assert (len(rows.ts), rows.left_out) == (2998, 1)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[0-9]{1,8}", fullmatch=True),
            st.integers(T, T + 5),
            st.sampled_from(["1", "01", "2"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("ali")
    (folder / "raw_sample.csv").write_text(
        HEADER + "".join(f"{u},{ts},{ad},430548_1007,{1 - c},{int(c)}\n" for u, ts, ad, c in rows)
    )
    events = list(AliDisplayAds(folder).events())
    shown = [(e.user_id, e.ts, e.item_id) for e in events if isinstance(e, Impression)]
    assert sorted(shown) == sorted((user, ts * 1000, ad) for user, ts, ad, _ in rows)
    clicked = [(e.user_id, e.ts, e.item_id) for e in events if not isinstance(e, Impression)]
    assert sorted(clicked) == sorted((user, ts * 1000, ad) for user, ts, ad, c in rows if c)
