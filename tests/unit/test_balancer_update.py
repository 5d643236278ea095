"""What an update of a balancer concludes: which services are stale, which packages come."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._balancer import update as balancer_update

SERVICES = [
    {"name": "nginx.service", "pid": "/run/nginx.pid", "files": ["/etc/llm.conf", "/usr/sbin/nginx"]},
    {"name": "keepalived.service", "pid": "/run/keepalived.pid", "files": ["/usr/sbin/keepalived"]},
]
NOTHING = [{"stdout": "0"}, {"stdout": "0"}]


def ages(**times: float | None) -> list[dict[str, Any]]:
    """Results of stat: the pid files were written at 100; a program is years older by its own time."""
    paths = {"nginx": 100.0, "keepalived": 100.0, "unit": 90.0, "nginx_program": 90.0, "keepalived_program": 90.0}
    names = {
        "nginx": "/run/nginx.pid",
        "keepalived": "/run/keepalived.pid",
        "unit": "/etc/llm.conf",
        "nginx_program": "/usr/sbin/nginx",
        "keepalived_program": "/usr/sbin/keepalived",
    }
    found: list[dict[str, Any]] = []
    for name, time in {**paths, **times}.items():
        if time is None:
            found.append({"stat": {"exists": False}})
        else:
            built = time if name in ("nginx", "keepalived") else 1.0
            found.append({"stat": {"exists": True, "path": names[name], "ctime": time, "mtime": built}})
    return found


@pytest.mark.parametrize(
    ("times", "replaced", "units", "expected"),
    [
        ({}, NOTHING, [], []),
        ({"nginx_program": 101.0}, NOTHING, [], ["nginx.service"]),
        ({"unit": 101.0}, NOTHING, [], ["nginx.service"]),
        ({"keepalived_program": 101.0, "unit": None}, NOTHING, [], ["keepalived.service"]),
        ({"nginx": None, "nginx_program": 101.0}, NOTHING, [], []),  # it does not run: it is started, not restarted
        ({}, [{"stdout": "2"}, {"stdout": ""}], [], ["nginx.service"]),  # libraries
        ({}, NOTHING, [{"changed": False}, {"changed": True}], ["keepalived.service"]),
        ({}, NOTHING, [{"skipped": True, "changed": False}, {"failed": True}], []),
    ],
)
def test_stale_is_what_is_older_than_its_files(
    times: dict[str, float | None], replaced: list[Any], units: list[Any], expected: list[str]
) -> None:
    assert balancer_update.stale(SERVICES, ages(**times), replaced, units) == expected


def test_upgrades_are_read_from_what_apt_simulates() -> None:
    told = [
        "Reading package lists...",
        "Inst nginx-common [1.22.1-9] (1.22.1-9+deb12u1 Debian:12.5/stable [all]) []",
        "Inst keepalived (1:2.2.7-1+b2 Debian:12.5/stable [amd64])",
        "Conf keepalived (1:2.2.7-1+b2 Debian:12.5/stable [amd64])",
    ]
    assert balancer_update.upgrades(told) == [
        "nginx-common 1.22.1-9 -> 1.22.1-9+deb12u1",
        "keepalived (new) -> 1:2.2.7-1+b2",
    ]
