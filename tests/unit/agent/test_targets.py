"""What people may call a replica."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent.targets import TargetError, resolve

MEMBERS = {"gpu1/r0": "chat", "gpu1/r1": "short", "gpu10/r0": "chat", "gpu2/main": "chat", "short/r0": "long"}


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["gpu1/r0"], ["gpu1/r0"]),
        (["gpu1"], ["gpu1/r0", "gpu1/r1"]),
        (["chat"], ["gpu1/r0", "gpu10/r0", "gpu2/main"]),
        (["gpu2/main", "gpu1", "gpu1/r1"], ["gpu1/r0", "gpu1/r1", "gpu2/main"]),
        (["gpu2"], ["gpu2/main"]),
    ],
)
def test_ids_hosts_and_pools(words: list[str], ids: list[str]) -> None:
    assert resolve(words, MEMBERS) == ids


@pytest.mark.parametrize(("word", "ids"), [("gpu10", ["gpu10/r0"]), ("gpu2/", ["gpu2/main"]), ("gpu1/r1", ["gpu1/r1"])])
def test_the_beginning_of_an_id_where_it_is_allowed(word: str, ids: list[str]) -> None:
    assert resolve([word], MEMBERS, prefixes=True) == ids


@pytest.mark.parametrize(
    ("words", "prefixes", "told"),
    [
        (["gpu"], True, "gpu is the beginning of gpu1/r0, gpu1/r1, gpu10/r0, gpu2/main: name one of them"),
        (["gpu2/"], False, "'gpu2/' is no replica, host or pool: name a replica (gpu1/r0, gpu1/r1, gpu10/r0,"),
        (["gpu9"], True, "a host (gpu1, gpu10, gpu2, short); a pool (chat, short, long)"),
        ([""], True, "'' is no replica, host or pool"),
        ([], False, "no target is named: name a replica"),
        (["short"], False, "short is a host (short/r0) and a pool (gpu1/r1): name ids"),
    ],
)
def test_what_is_not_clear_is_told_with_what_there_is(words: list[str], prefixes: bool, told: str) -> None:
    with pytest.raises(TargetError) as problem:
        resolve(words, MEMBERS, prefixes)
    assert told in str(problem.value)


def test_a_large_fleet_is_not_printed_as_a_whole() -> None:
    with pytest.raises(TargetError, match="g11/r0 and 188 more"):
        resolve(["x"], {f"g{number}/r0": "chat" for number in range(200)})
