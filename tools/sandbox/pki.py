"""A private certificate authority, one server certificate for balancers and monitoring, the keys of the sandbox."""

from __future__ import annotations

import datetime
import ipaddress
import json
import pathlib
import secrets
from typing import Any

from .layout import BALANCERS, MONITOR, PKI, SECRETS, VIRTUAL_ADDRESS

_DAYS = 30
_RENEW_DAYS = 7


def ensure() -> None:
    """Make the authority, certificate and keys, or renew a certificate that ends within a week."""
    ensure_certificate(PKI)
    keys = {
        "backend_keys": [secrets.token_urlsafe(32)],
        "client_keys": [{"name": name, "key": f"sk-{secrets.token_urlsafe(32)}"} for name in ("demo", "load")],
        "monitoring_password": secrets.token_urlsafe(24),
        **_secrets(),
    }
    if keys != _secrets():
        _write(SECRETS, json.dumps(keys, indent=2).encode())


def client_key(name: str) -> str:
    """Return the API key of the sandbox's client of that name."""
    found: str = next(key["key"] for key in _secrets()["client_keys"] if key["name"] == name)
    return found


def monitoring_password() -> str:
    """Return the password of the sandbox's Prometheus and Alertmanager."""
    return str(_secrets()["monitoring_password"])


def _secrets() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SECRETS.read_text()) if SECRETS.exists() else {}
    return found


def ensure_certificate(directory: pathlib.Path) -> None:
    """Make ``ca.crt``, ``server.crt`` and ``server.key`` there, unless one for our addresses is valid for a week."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    server = directory / "server.crt"
    served = (*(host.address for host in (*BALANCERS, MONITOR)), VIRTUAL_ADDRESS)
    addresses = [ipaddress.ip_address(text) for text in served]
    if server.exists() and (directory / "server.key").exists():
        found = x509.load_pem_x509_certificate(server.read_bytes())
        named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = set(addresses) <= set(named.get_values_for_type(x509.IPAddress))
        if covered and found.not_valid_after_utc - now > datetime.timedelta(days=_RENEW_DAYS):
            return
    directory.mkdir(parents=True, exist_ok=True)

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None) -> x509.CertificateBuilder:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer or name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _turn in range(2))
    usage = dict.fromkeys(("data_encipherment", "encipher_only", "decipher_only", "key_agreement"), False)
    usage |= {"content_commitment": False, "key_encipherment": False, "digital_signature": True}
    ca = (
        certificate("llmops sandbox CA", ca_key, None)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName("llm.example.com"), x509.DNSName("localhost")]
    names += [x509.IPAddress(address) for address in addresses]
    leaf = (
        certificate("llm.example.com", server_key, ca.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    # The authority's key is not kept: a renewal makes a new authority, and nothing can sign in its name.
    _write(directory / "server.key", pem(server_key))
    (directory / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    server.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))


def _write(path: pathlib.Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
