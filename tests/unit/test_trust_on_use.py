"""Whom the system trusts is read late, and is trusted no more and no less for it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ASK = """
import asyncio, ssl, sys
from instar_node.trust_on_use import trust_on_use
with trust_on_use():
    import aiohttp
from aiohttp import connector

def trusted():
    return connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509_ca"]

async def main(folder):
    print(trusted())
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(folder + "/server.pem")
    server = await asyncio.start_server(lambda _, out: out.close(), "127.0.0.1", 0, ssl=own)
    port = server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(f"https://127.0.0.1:{port}/")
        except aiohttp.ClientConnectorCertificateError:
            print("refused")
        except aiohttp.ServerDisconnectedError:
            print("accepted")
    print(trusted())

asyncio.run(main(sys.argv[1]))
"""


def self_signed(path: Path) -> None:
    """Key and certificate of a server on loopback, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


@pytest.mark.parametrize(("trusted", "answer"), [("server.pem", "accepted"), ("other.pem", "refused")])
def test_certificates_are_read_at_the_first_handshake_and_count_as_ever(
    tmp_path: Path, trusted: str, answer: str
) -> None:
    for name in ("server.pem", "other.pem"):
        self_signed(tmp_path / name)
    (tmp_path / "none").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "SSL_CERT_FILE": str(tmp_path / trusted),
            "SSL_CERT_DIR": str(tmp_path / "none"),
        },
    )
    assert ran.stdout.split() == ["0", answer, "1"]


def test_a_node_that_speaks_no_tls_reads_none(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, click\n"
        "from instar_tui.program import instar_tui, run\n"
        "click.echo = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # `ready` is enough\n"
        "run(instar_tui, ['--daemon', '--listen', '127.0.0.1:0', '--home', sys.argv[1]])\n"
        "from aiohttp import connector\n"
        "print(connector._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509_ca'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"
