"""Takes a picture of a page with a Chromium that runs without a window."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIMEOUT = 180


class BrowserError(Exception):
    """No picture; the message names the program and the reason."""


def find() -> str:
    """Return the first browser that is installed."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    raise BrowserError(f"none of {', '.join(NAMES)} is installed: install chromium, or name a browser with --browser")


def picture(browser: str, page: str, width: int, height: int, target: pathlib.Path) -> None:
    """Write the picture of a page of this size. The page is ours, so no sandbox is needed, which root cannot have."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = pathlib.Path(folder) / "page.html", pathlib.Path(folder) / "page.png"
        source.write_text(page, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"]
        command += [f"--screenshot={made}", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BrowserError(f"{browser}: {error}") from error
        if not made.exists():
            raise BrowserError(f"{browser} wrote no picture (exit status {done.returncode}): {done.stderr[-500:]}")
        shutil.copyfile(made, target)
