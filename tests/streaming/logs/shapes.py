"""A small log of each shape, and of each that comes with headrace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streaming.logs import EventLog, find_log
from tests.streaming.logs.small_logs import T, declare

Make = Callable[[Path], EventLog]


def lists_in_a_text(folder: Path) -> EventLog:
    """As MIND: entries that end with a mark."""
    rows = "1\tU1\t11/15/2019 8:55:22 AM\tN-1-1 N2-0\n2\tU2\t11/15/2019 8:56:00 AM\tN2-0 N3-0\n"
    return declare(
        folder,
        rows,
        columns=["id", "user", "time", "shown"],
        item=None,
        click=None,
        request="id",
        time={"column": "time", "format": "%m/%d/%Y %I:%M:%S %p"},
        lists={"shown": "shown", "mark": "-"},
    )


def lists_of_ids(folder: Path) -> EventLog:
    """As EB-NeRD, written to a CSV: two columns of lists."""
    rows = f"id,user,time,shown,clicked\n9,u1,{T},[1 2 3],[2]\n8,u2,{T},\"['1', '3']\",[]\n"
    return declare(
        folder,
        rows,
        item=None,
        click=None,
        request="id",
        lists={"shown": "shown", "clicked": "clicked", "position": True},
    )


def list_and_clicked_item(folder: Path) -> EventLog:
    """As Trivago: one clicked item, prices beside the list."""
    rows = f"session,user,time,reference,shown,prices\ns,u1,{T},h2,h1|h2|h3,10|20|30\n"
    return declare(
        folder,
        rows,
        item=None,
        click=None,
        request="session",
        lists={
            "shown": "shown",
            "clicked": "reference",
            "separator": "|",
            "position": True,
            "each": {"price": "prices"},
        },
    )


def actions_apart(folder: Path) -> EventLog:
    """Impressions and actions in files of their own, joined by user, item and time."""
    (folder / "actions.csv").write_text(
        f"who,what,when,kind\nu1,i1,{T + 3},click\nu1,i1,{T + 9},buy\nu2,i1,{T + 1},look\n"
    )
    return declare(
        folder,
        click=None,
        log={
            "attribution": "1min",
            "feedback": {
                "files": "actions.csv",
                "user": "who",
                "item": "what",
                "kind": "kind",
                "time": {"column": "when", "unit": "s"},
            },
            "actions": {"click": {}, "buy": {"weight": 3}, "look": {"label": "none"}},
        },
    )


def several_kinds(folder: Path) -> EventLog:
    """Kinds of action in the row of the impression, one with a time and a value of its own."""
    rows = f"user,item,clk,buy,paid,bought,time\nu1,i1,1,1,9.5,{T + 60},{T}\nu2,i1,0,0,,,{T}\n"
    return declare(
        folder,
        rows,
        click="clk = 1",
        log={
            "attribution": "1h",
            "actions": {
                "buy": {
                    "when": "buy = 1",
                    "weight": 2,
                    "value": "paid",
                    "time": {"column": "bought", "unit": "s"},
                }
            },
        },
    )


def clicks_only(folder: Path) -> EventLog:
    """Clicks alone, with sampled negatives."""
    rows = "".join(f"u{n % 3},i{n * n % 11},5,{T + n}\n" for n in range(60))
    return declare(
        folder,
        "user,item,rating,time\n" + rows,
        click=None,
        log={"negatives": {"per_click": 2}},
    )


SHAPES: dict[str, Make] = {
    "row and rule": declare,
    "lists in a text": lists_in_a_text,
    "lists of ids": lists_of_ids,
    "list and clicked item": list_and_clicked_item,
    "actions apart": actions_apart,
    "several kinds": several_kinds,
    "clicks only": clicks_only,
}

RATINGS = [(2, 11, 5, T + 2), (1, 12, 4, T), (1, 10, 2, T + 2), (2, 10, 3, T + 1), (2, 12, 1, T)]


def write_ml_1m(folder: Path) -> Path:
    (folder / "ratings.dat").write_text(
        "".join("::".join(map(str, rating)) + "\n" for rating in RATINGS)
    )
    films = '10::Café Días (1900) (1988)::Drama\n11::"Up" (1999)::Comedy|Sci-Fi\n12::Old::Drama\n'
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    (folder / "users.dat").write_text("1::F::25::7::12345\n2::M::1::0::99999\n")
    return folder


def write_ml_100k(folder: Path) -> Path:
    (folder / "u.data").write_text("".join("\t".join(map(str, r)) + "\n" for r in RATINGS))
    flags = "|".join("1" if genre in {5, 8} else "0" for genre in range(19))
    films = (
        f'10|Café Días (1988)|01-Jan-1999||http://example.org|{flags}\n11|Un"titled|01-Jan-1995|||'
    )
    (folder / "u.item").write_bytes((films + flags.replace("1", "0") + "\n").encode("latin-1"))
    (folder / "u.user").write_text("1|24|F|writer|12345\n2|57|M|other|99999\n")
    return folder


def write_recbole(folder: Path) -> Path:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    lines = "".join("\t".join(map(str, rating)) + "\n" for rating in RATINGS)
    (folder / "ml-100k.inter").write_text(header + lines)
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tCafé Días\t1988\tComedy Drama\n11\tunkonwn\tunkonwn\tunknown\n"
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tF\twriter\t12345\n2\t57\tM\tother\t99999\n"
    )
    return folder


def write_amazon(folder: Path, header: str = "") -> Path:
    rows = f"A2,B00000J061,4.0,{T}\nA10,0132793040,5.0,{T}\n00123,0132793040,1.0,{T}\n"
    (folder / "ratings_Electronics.csv").write_text(header + rows)
    (folder / "meta_Electronics.jsonl").write_text(
        '{"asin": "0132793040", "title": "Bob\'s \\"cable\\"", "price": 11.69,'
        ' "categories": ["Electronics", "Cables"]}\n{"asin": "B00000J061"}\n'
    )
    return folder


def write_ali(folder: Path) -> Path:
    (folder / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
        f"581738,{T},1,430548_1007,1,0\n449818,{T + 9},3,430548_1007,0,1\n"
        f"7,{T - 60},4,430539_1007,1,0\n7,{T - 60},4,430539_1007,1,0\n"
    )
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n1,6406,83237,1,95471,170.0\n"
        "3,6406,83237,1,NULL,99999999.0\n4,6406,83237,1,87331,0.01\n"
    )
    (folder / "user_profile.csv").write_text(
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,"
        "occupation,new_user_class_level \n7,0,5,2,5,,3,0,3\n581738,0,13,1,5,1,3,0,\n"
    )
    return folder


def shipped() -> dict[str, Make]:
    """Logs that come with headrace, over files of a few rows."""
    return {
        "ml-1m": lambda folder: find_log("ml-1m", write_ml_1m(folder)),
        "ml-100k": lambda folder: find_log("ml-100k", write_ml_100k(folder)),
        "ml-100k of RecBole": lambda folder: find_log("ml-100k", write_recbole(folder)),
        "amazon": lambda folder: find_log("amazon-electronics", write_amazon(folder)),
        "ali": lambda folder: find_log("ali-display-ads", write_ali(folder)),
    }
