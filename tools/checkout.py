"""Shows a plain checkout to ansible under the name that it demands: ``.../ansible_collections/llmops/vllm``."""

from __future__ import annotations

import hashlib
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def collections_path(root: pathlib.Path = ROOT) -> pathlib.Path:
    """Return a folder for ``ANSIBLE_COLLECTIONS_PATH`` in which a link leads to this checkout, or to another one.

    The link lies outside the checkout: inside it, every tool that walks the tree would walk in a circle.
    """
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    base = pathlib.Path(tempfile.gettempdir()) / f"llmops-vllm-{digest}"
    link = base / "ansible_collections" / "llmops" / "vllm"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(root)
    return base


if __name__ == "__main__":
    print(collections_path())
