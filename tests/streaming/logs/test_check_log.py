"""What `headrace log check` counts of actions that fit no impression."""

from __future__ import annotations

from pathlib import Path

from streaming.logs.check_log import check_log
from tests.streaming.logs.small_logs import T, declare


def test_clicks_on_items_that_are_not_in_their_list_are_counted(tmp_path: Path) -> None:
    rows = f"id,user,time,shown,clicked\n9,u1,{T},[1 2 3],[2 7 7 8]\n8,u2,{T},[1 3],[]\n"
    log = declare(
        tmp_path,
        rows + f"7,u3,{T},[ 4 5],[4]\n",
        item=None,
        click=None,
        request="id",
        lists={"shown": "shown", "clicked": "clicked"},
    )
    found = check_log(log.declared, tmp_path)
    assert (found.unlisted, found.early, found.positives, found.impressions) == (2, 0, 2, 7)


def test_actions_before_their_impression_are_counted(tmp_path: Path) -> None:
    rows = f"user,item,bought,time\nu1,i1,{T - 60},{T}\nu2,i1,,{T}\nu3,i1,{T + 5},{T}\n"
    bought = {"when": "bought IS NOT NULL", "time": {"column": "bought", "unit": "s"}}
    log = declare(tmp_path, rows, click=None, log={"actions": {"buy": bought}})
    found = check_log(log.declared, tmp_path)
    assert (found.unlisted, found.early, found.positives) == (0, 1, 2)


def test_so_are_those_of_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(
        f"req,user,item,time\na,u1,i1,{T - 1}\nb,u2,i1,{T + 1}\nc,u3,i1,{T + 1}\n"
    )
    feedback = {
        "files": "clicks.csv",
        "request": "req",
        "user": "user",
        "item": "item",
        "time": {"column": "time", "unit": "s"},
    }
    log = declare(
        tmp_path,
        f"req,user,item,time\na,u1,i1,{T}\nb,u2,i1,{T}\n",
        click=None,
        request="req",
        log={"feedback": feedback},
    )
    found = check_log(log.declared, tmp_path)
    assert (found.early, found.positives, found.joined) == (1, 1, 1 / 3)
