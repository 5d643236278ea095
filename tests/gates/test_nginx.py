"""Unit tests that need NGINX and keepalived, which need not be on this machine: in an overlay of Debian's packages.

The tests see this machine and, over it, files of the packages; what they write goes to a folder of the gate. Where the
machine has the programs, these tests run a second time, with Debian's.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tools import debian_packages

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["nginx", "libnginx-mod-http-lua", "lua-cjson", "keepalived"]
TESTS = [
    "agent/test_nginx_lua.py",
    "agent/test_nginx_lua_engine.py",
    "agent/test_nginx_native.py",
    "agent/test_nginx_native_engine.py",
    "test_log_exporter_nginx.py",
    "test_role_llm_balancer.py",
    "test_role_llm_balancer_address.py",
]
UNSHARE = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
# $0 is the gate's folder, $1 the checkout
OVERLAY = """
mount -t tmpfs tmpfs "$0/own"
mkdir "$0/own/work" "$0/own/root"
cp -a "$0/packages" "$0/own/upper"  # as a layer below it would be part of the other one, which is refused
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/own/upper,workdir=$0/own/work" "$0/own/root"
for place in /proc /sys /dev; do mount --rbind "$place" "$0/own/root$place"; done
cd "$1"
shift
exec chroot "$0/own/root" sh -ec 'cd "$0" && exec "$@"' "$PWD" "$@"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The gate's folder, with what Debian's packages would bring, less what their own scripts would do."""
    base = tmp_path_factory.mktemp("overlay")
    (base / "own").mkdir()
    files = base / "packages"
    try:
        names = debian_packages.not_installed(*PACKAGES)
        folders = [debian_packages.unpacked(name) for name in names]
    except debian_packages.NoPackage as reason:
        pytest.skip(f"Debian's packages cannot be had here: {reason}")
    for folder in folders:
        for top in folder.iterdir():
            # /lib and the like are links to those below /usr, which a folder of that name would hide
            target = files / ("usr" if top.name in ("bin", "sbin", "lib", "lib64") else "") / top.name
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", f"{top}/.", str(target)], check=True)
    enabled = files / "etc" / "nginx" / "modules-enabled"
    enabled.mkdir(parents=True, exist_ok=True)
    for order, module in (("10", "mod-http-ndk"), ("50", "mod-http-lua")):
        link = enabled / f"{order}-{module}.conf"
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/share/nginx/modules-available/{module}.conf")
    tried = subprocess.run(
        [*UNSHARE, OVERLAY, str(base), str(ROOT), "true"], check=False, capture_output=True, text=True
    )
    if tried.returncode != 0:
        pytest.skip(f"no overlay of this machine can be had: {tried.stderr.strip()}")
    return base


@pytest.mark.parametrize("name", TESTS)
def test_unit_tests_pass_with_the_programs_of_debian(name: str, place: pathlib.Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", f"tests/unit/{name}"]
    words = [*UNSHARE, OVERLAY, str(place), str(ROOT), *command]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(words, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.findall(r"^SKIPPED .*needs .*", done.stdout, re.MULTILINE) == []
