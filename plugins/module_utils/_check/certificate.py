# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the certificate of a role and its key. No message ever holds a secret."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from .problem import Problem

STAMP = "%Y%m%d%H%M%SZ"  # ASN.1's generalized time, as community.crypto writes it

BALANCER = "llm_balancer"
# A key in base64, which has no dot and never begins with a slash; a path of this length has one of both.
_KEY = re.compile(r"(?!/)[^.]*[A-Za-z0-9+/=]{48,}[^.]*")


def problems(
    server_name: str,
    certificate: Mapping[str, Any],
    private_key: Mapping[str, Any] | None,
    now: str,
    min_days: int = 0,
    role: str = BALANCER,
) -> Iterator[Problem]:
    """Yield what is wrong with a certificate and, where it is at hand, its key.

    ``certificate`` and ``private_key`` are the results of community.crypto's info filters, times ``YYYYMMDDHHMMSSZ``.
    A certificate that ends within ``min_days`` days is a problem.
    """
    variable, key_variable = f"{role}_tls_certificate", f"{role}_tls_key"
    begins, ends = str(certificate["not_before"]), str(certificate["not_after"])
    soon = (datetime.strptime(now, STAMP) + timedelta(days=min_days)).strftime(STAMP)
    if ends <= now:
        yield Problem("", variable, ends, f"expired at {_readable(ends)} (now {_readable(now)}): renew it")
    elif ends <= soon:
        yield Problem("", variable, ends, f"expires at {_readable(ends)}, within {min_days} days: renew it")
    if begins > now:
        text = f"is not valid before {_readable(begins)} (now {_readable(now)}): wait, or set the controller's clock"
        yield Problem("", variable, begins, text)
    fingerprint = certificate["public_key_fingerprints"]["sha256"]
    if private_key is not None and private_key["public_key_fingerprints"]["sha256"] != fingerprint:
        text = (
            f"does not belong to {variable} (their public keys differ): give the key with which this certificate "
            "was requested, and the server's certificate first in its file"
        )
        yield Problem("", key_variable, "", text)
    names = [str(name) for name in certificate.get("subject_alt_name") or []]
    if server_name and not any(_covers(name, server_name) for name in names):
        text = (
            f"does not cover {role}_server_name {server_name!r}; it covers "
            f"{', '.join(names) or 'no name at all (subjectAltName is empty, which clients refuse)'}: "
            "correct the name or use another certificate"
        )
        yield Problem("", variable, server_name, text)


def messages(
    server_name: str,
    certificate: Mapping[str, Any],
    private_key: Mapping[str, Any],
    now: str,
    role: str = BALANCER,
) -> list[str]:
    """Return the problems as lines for people."""
    return [str(problem) for problem in problems(server_name, certificate, private_key, now, role=role)]


def pem_problems(settings: Mapping[str, Any], role: str = BALANCER, program: str = "NGINX") -> Iterator[Problem]:
    """Yield what keeps the texts from being a certificate and a key: missing, of another kind, encrypted, damaged.

    A text that ``settings`` do not hold is not at hand, and is not judged.
    """
    wanted = (("tls_certificate", "certificate_pem", "CERTIFICATE"), ("tls_key", "key_pem", "PRIVATE KEY"))
    for name, field, kind in wanted:
        variable, value, pem = f"{role}_{name}", str(settings[name] or ""), str(settings.get(field) or "")
        if value and field not in settings:
            continue
        # whatever is no path may be a key in another form, and is shown nowhere
        content = "-----BEGIN" in value or "\n" in value or _KEY.fullmatch(value) is not None
        shown = "PEM text" if content else value
        what = "its content" if content else f"the file {value} on the controller"
        if value == "":
            text = "is empty: give the PEM text or the path of a file on the controller"
        elif pem == "" and content:
            text = "is neither PEM text nor the path of a file: give the text as it is, with its lines, or a path"
        elif pem == "":
            text = f"names {what}, which is missing, empty or not readable: correct the path"
        elif f"{kind}-----" not in pem:
            text = f"holds no {kind} in PEM form in {what}: convert it"
        elif name == "tls_key" and "ENCRYPTED" in pem:
            text = (
                f"is protected by a passphrase in {what}, which {program} cannot ask for at a restart: store it "
                "without one, encrypted by ansible-vault"
            )
        elif _damaged(pem, kind):
            text = f"holds a damaged {kind} in {what}: compare it with the original"
        else:
            continue
        yield Problem("", variable, shown, text)


def _readable(stamp: str) -> str:
    return datetime.strptime(stamp, STAMP).strftime("%Y-%m-%d %H:%M:%S UTC")


def _covers(alternative: str, wanted: str) -> bool:
    kind, _colon, value = alternative.partition(":")
    value, wanted = value.lower().rstrip("."), wanted.lower().rstrip(".")
    if kind in ("IP", "IP Address"):
        try:
            return ipaddress.ip_address(value) == ipaddress.ip_address(wanted)
        except ValueError:
            return False
    if kind != "DNS":
        return False
    if value.startswith("*."):  # a star stands for one label
        return wanted.partition(".")[2] == value[2:]
    return value == wanted


def _damaged(pem: str, kind: str) -> bool:
    """Tell whether the first PEM block of this kind cannot be DER: base64 of a sequence (tag 0x30)."""
    block = re.search(rf"-----BEGIN [A-Z ]*{kind}-----(.*?)-----END [A-Z ]*{kind}-----", pem, re.DOTALL)
    try:
        return block is None or base64.b64decode("".join(block[1].split()), validate=True)[:1] != b"\x30"
    except binascii.Error:
        return True
