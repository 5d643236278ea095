"""FAKE of Alertmanager's API v2 for silences, as 0.25 answers it; no alerts, no cluster.

It stands in where a test is about what a module sends and says; tests/unit/test_alert_silence.py runs the same story
against a real one, where Debian's package can be had.
"""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from tests.fakes.web import Answer

API = "/api/v2/silence"


class Alertmanager:
    """Answers ``Web``; ``silences`` are all that there ever were, in the order in which they came."""

    def __init__(self) -> None:
        self.silences: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, sent: Any) -> Answer:
        if (method, path) == ("GET", f"{API}s"):
            return 200, [{**silence, "status": {"state": self._state(silence)}} for silence in self.silences]
        if (method, path) == ("POST", f"{API}s"):
            return self._post(sent)
        found = [silence for silence in self.silences if path == f"{API}/{silence['id']}"]
        if method == "DELETE" and found:
            found[0]["endsAt"] = _now()
            return 200, b""
        return 404, b"not found"

    def _post(self, sent: dict[str, Any]) -> Answer:
        if all(matcher["value"] in ("", ".*") for matcher in sent["matchers"]):
            return 400, "silence invalid: at least one matcher must not match the empty string"
        known = [silence for silence in self.silences if silence["id"] == sent.get("id")]
        if sent.get("id") and not known:
            return 404, "silence not found"
        if known and self._state(known[0]) == "active" and known[0]["startsAt"] == sent["startsAt"]:
            known[0].update(sent)
        else:
            self.silences.append({**sent, "id": str(uuid.uuid4())})
        return 200, {"silenceID": (known or self.silences)[-1]["id"]}

    def _state(self, silence: dict[str, Any]) -> str:
        return "active" if silence["endsAt"] > _now() else "expired"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()
