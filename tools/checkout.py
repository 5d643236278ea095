"""Shows a plain checkout to ansible under the name that it demands: ``.../ansible_collections/llmops/vllm``."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import sysconfig
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _base(root: pathlib.Path = ROOT) -> pathlib.Path:
    """Return a checkout's folder of links: outside it, or every tool that walks the tree would walk in a circle."""
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return pathlib.Path(tempfile.gettempdir()) / f"llmops-vllm-{digest}"


def _link(folder: pathlib.Path, name: str, target: pathlib.Path) -> None:
    link = folder / "ansible_collections" / pathlib.Path(*name.split("."))
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and link.readlink() == target):
        new = link.with_name(f"{link.name}.{os.getpid()}")  # tests run in several processes
        new.symlink_to(target)
        new.replace(link)


def collections_path(root: pathlib.Path = ROOT) -> pathlib.Path:
    """Return a folder for ``ANSIBLE_COLLECTIONS_PATH`` in which a link leads to this checkout, or to another one."""
    _link(_base(root), "llmops.vllm", root)
    return _base(root)


def lean_environment() -> dict[str, str]:
    """Return variables with which ansible sees this checkout, the collections that galaxy.yml names, and no other.

    The package ``ansible`` brings ninety: a tool that reads the documentation of all takes minutes over them.
    """
    dependencies = _base() / "dependencies"
    installed = pathlib.Path(sysconfig.get_path("purelib")) / "ansible_collections"
    listed = (ROOT / "galaxy.yml").read_text().partition("\ndependencies:\n")[2]
    for name in re.findall(r"^  ([a-z_]+\.[a-z_]+):", listed, re.MULTILINE):
        _link(dependencies, name, installed / pathlib.Path(*name.split(".")))
    return {
        "ANSIBLE_COLLECTIONS_PATH": f"{collections_path()}:{dependencies}",
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
    }


def make_importable() -> None:
    """Let this process import ``ansible_collections.llmops.vllm`` from this checkout, as ansible itself would."""
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    _AnsibleCollectionFinder(paths=[str(collections_path())])._install()


if __name__ == "__main__":
    print(collections_path())
