"""The flight record's bounds: time, size, number; and programs that hang."""

from __future__ import annotations

import os
import pathlib
import threading
import time

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands, parts, record


def test_a_part_that_hangs_costs_its_time_and_nothing_else() -> None:
    stuck = threading.Event()

    def hang() -> str:
        stuck.wait(30)
        return ""

    began = time.monotonic()
    texts, notes = record.collect({"a": lambda: "text", "b": hang, "c": lambda: str(1 / 0), "d": hang}, 0.3)
    stuck.set()
    assert time.monotonic() - began < 5
    assert texts == {"a": "text"}
    assert notes == {
        "b": "not done within 0.3 s", "c": "ZeroDivisionError: division by zero", "d": "not done within 0.3 s"
    }  # fmt: skip


def test_a_part_is_cut_in_its_middle(tmp_path: pathlib.Path) -> None:
    text = "begin " + "x" * (3 * record.PART_LIMIT) + " end"
    record.save(tmp_path, "20261125T061530Z-a-0000", {}, {"big": lambda: text}, ["secret"])
    found = (tmp_path / "20261125T061530Z-a-0000" / "big.txt").read_text()
    assert len(found) <= record.PART_LIMIT
    assert found.startswith("begin ")
    assert found.endswith(" end")


def test_the_last_twenty_are_kept(tmp_path: pathlib.Path) -> None:
    for number in range(23):
        record.save(tmp_path, f"20261125T0615{number:02}Z-a-0000", {}, {"a": lambda: "x"}, [])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        f"20261125T0615{number:02}Z-a-0000" for number in range(3, 23)
    ]


def test_the_oldest_go_when_they_take_too_much_room(tmp_path: pathlib.Path) -> None:
    for number in range(5):
        record.save(tmp_path, f"20261125T0615{number:02}Z-a-0000", {}, {"a": lambda: "x" * 1000}, [])
    record.prune(tmp_path, 20, 2500)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["20261125T061503Z-a-0000", "20261125T061504Z-a-0000"]


@pytest.mark.parametrize(
    ("command", "code", "text", "problem"),
    [
        (["sh", "-c", "echo out; echo err >&2"], 0, "out\nerr\n", ""),
        (["sh", "-c", "echo no; exit 3"], 3, "no\n", "ended with code 3"),
        (["sh", "-c", "echo began; sleep 30 & sleep 30"], None, "began\n", "not done within 0.5 s"),
        (["no-such-program"], None, "", "no-such-program is not on this host"),
    ],
)
def test_programs_come_back(command: list[str], code: int | None, text: str, problem: str) -> None:
    began = time.monotonic()
    done = commands.run(command, 0.5)
    assert time.monotonic() - began < 5
    assert (done.code, done.text) == (code, text)
    assert problem in done.problem


def test_output_without_end_is_bounded() -> None:
    assert len(commands.run(["sh", "-c", "yes"], 0.5).text) <= commands.LIMIT


def test_threads_that_cannot_be_read_are_notes() -> None:
    text = parts.threads([os.getpid(), 2**22 + 1])
    assert f"-- thread {os.getpid()} " in text
    assert f"== process {2**22 + 1} (comm: No such file or directory)" in text
