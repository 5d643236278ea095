"""Runs a module's ``main()`` in this process and returns what it would have printed; starts the fake vLLM."""

from __future__ import annotations

import grp
import importlib
import json
import os
import pathlib
import pwd
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.text.converters import to_bytes

from tests.fakes.vllm.running import Fake, lay_out, starter

if TYPE_CHECKING:
    from tests.monitoring_role import Rendered


class ModuleResult(dict):
    """The module's JSON result; ``failed`` is True when it ended in ``fail_json``."""

    @property
    def failed(self) -> bool:
        return bool(self.get("failed"))


class _Exit(Exception):
    pass


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleResult]:
    """``run_module("vllm_info", {...}, check=True, diff=True)`` -> ModuleResult."""

    def run(name: str, args: dict[str, Any], *, check: bool = False, diff: bool = True) -> ModuleResult:
        module = importlib.import_module(f"ansible_collections.llmops.vllm.plugins.modules.{name}")
        payload = dict(args, _ansible_check_mode=check, _ansible_diff=diff, _ansible_remote_tmp="/var/tmp")
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", to_bytes(json.dumps({"ANSIBLE_MODULE_ARGS": payload})))
        if hasattr(basic, "_ANSIBLE_PROFILE"):
            monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
        ended: dict[str, Any] = {}

        def end(failed: bool) -> Callable[..., None]:
            def inner(self: basic.AnsibleModule, msg: str | None = None, **kwargs: Any) -> None:
                if msg is not None:
                    kwargs["msg"] = msg
                kwargs.setdefault("changed", False)
                if failed:
                    kwargs["failed"] = True
                # what a user would see: secrets named by no_log are masked
                ended.update(basic.remove_values(kwargs, self.no_log_values))
                raise _Exit

            return inner

        monkeypatch.setattr(basic.AnsibleModule, "exit_json", end(False))
        monkeypatch.setattr(basic.AnsibleModule, "fail_json", end(True))
        with pytest.raises(_Exit):
            module.main()
        return ModuleResult(ended)

    return run


@pytest.fixture
def release_args(tmp_path: pathlib.Path) -> dict[str, Any]:
    """Arguments of vllm_release for replica r0 below ``tmp_path``; its environment and its weights are there."""
    for name in ("env", "model"):
        (tmp_path / name).mkdir()
    return {
        "replica": "r0",
        "root": str(tmp_path / "etc" / "vllm"),
        "settings": {"model": str(tmp_path / "model"), "max-model-len": 1024, "port": 8000},
        "environment": {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": 75},
        "unit": "[Service]\nTimeoutStopSec=90\n",
        "env": str(tmp_path / "env"),
        "model": str(tmp_path / "model"),
        "model_name": "tiny",
        "model_revision": "a" * 40,
        "version": "0.32.0",
        "secrets": {"api-key": ["first-key-0123456789abcdef0123456789", "second-key-0123456789abcdef012345678"]},
        "owner": pwd.getpwuid(os.geteuid()).pw_name,
        "group": grp.getgrgid(os.getegid()).gr_name,
        "service": "",
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the fake vLLM is laid out, with two models."""
    return lay_out(tmp_path_factory.mktemp("fake"))


@pytest.fixture
def start(site: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Fake]]:
    """A function that starts fakes; all of them end with the test."""
    with starter(site, request.node.name) as begin:
        yield begin


@pytest.fixture(scope="session")
def monitoring_examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rendered]:
    """Files of the role llm_monitoring, by example; ansible needs seconds for them."""
    from tests import monitoring_role  # needs more than the oldest Python for targets has

    return monitoring_role.render(tmp_path_factory.mktemp("monitoring"), monitoring_role.EXAMPLES)
