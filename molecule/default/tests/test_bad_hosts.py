"""A host that cannot take what it is to serve is refused by the check plays, before anything on it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import SERVERS, ansible, host

# case: (variables that make the host unfit, words that the operator reads)
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "operating system": ({"__vllm_systems": ["Debian 99"]}, ["Debian 12", "Debian 99", "llmops_allow_untested_os"]),
    "Python": ({"vllm_prefix": "/opt/other", "vllm_python": "/usr/bin/python2"}, ["/usr/bin/python2", "vllm_python"]),
    "disk too small": ({"vllm_prefix": "/opt/other", "vllm_disk_gib": 100000}, ["100000", "vllm_disk_gib"]),
    "type of a variable": ({"vllm_start_timeout": "soon"}, ["vllm_start_timeout", "soon"]),
    "key too short": ({"vllm_api_keys": ["short"]}, ["vllm_api_keys", "5 characters", "32"]),
    "directory of the model on the controller": (
        {"llmops_model_source": "controller:///no/such/directory"},
        ["/no/such/directory", "controller"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_unfit_host_is_refused_in_words(case: str) -> None:
    variables, words = BAD[case]
    wish = json.dumps(variables)
    done = ansible("ansible-playbook", "llmops.vllm.site", "--limit", SERVERS[0], "--tags", "check", "-e", wish)
    assert done.returncode != 0
    assert [word for word in words if word not in done.stdout] == [], done.stdout[-3000:]
    assert not host(SERVERS[0]).file("/opt/other").exists
