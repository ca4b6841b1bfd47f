"""A node behind a real TLS-terminating reverse proxy: paired through it, reached through it, and nothing is
readable there. The other machine cannot be reached at all, so every tunnel goes that one way."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from instar_node.api import types as t
from instar_node.wiring.own_urls import own_addresses
from tests.cluster.harness import Cluster, Machine, wait_for
from tests.ports import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
NOWHERE = "http://192.0.2.1:9"
"""An address that nobody has (RFC 5737)."""

HOST = own_addresses()[0]
"""Where other hosts would find this one. With a loopback address everything would be on one host."""

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian package nginx-light)"),
    pytest.mark.skipif(HOST.startswith("127."), reason="this computer has no address but loopback"),
]

CONFIGURATION = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  log_format seen '$request_method $uri $status';
  access_log {folder}/access.log seen;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen {host}:{port} ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    location /desk/ {{
      proxy_pass http://127.0.0.1:{node}/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_read_timeout 60s;
    }}
  }}
}}
"""


def certificate(folder: Path) -> None:
    """A certificate of our own for ``HOST``: ``cert.pem`` and ``key.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address(HOST))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)


@contextmanager
def proxy(folder: Path) -> Iterator[None]:
    """nginx with the configuration of the folder."""
    assert NGINX is not None
    with (folder / "nginx.out").open("w") as out:
        command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            wait_for(lambda: (folder / "nginx.pid").exists() or process.poll() is not None)
            assert process.poll() is None, (folder / "nginx.out").read_text()
            yield
        finally:
            process.terminate()
            process.wait(10)


def sees(machine: Machine, other: str) -> bool:
    """Whether there is a tunnel to the other machine."""
    return any(row.nickname == other and row.online for row in machine.api.machines().machines)


def test_pairing_and_tunnels_work_through_a_tls_terminating_proxy(cluster: Cluster, tmp_path: Path) -> None:
    folder, port = tmp_path / "nginx", free_port()
    folder.mkdir()
    certificate(folder)
    desk, mini = cluster.machine("desk"), cluster.machine("mini")
    desk.urls, mini.urls = (f"https://{HOST}:{port}/desk",), (NOWHERE,)
    for machine in (desk, mini):
        machine.environment["SSL_CERT_FILE"] = str(folder / "cert.pem")
        machine.configure()
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(folder=folder, host=HOST, port=port, node=desk.port)
    )
    with proxy(folder):
        desk.start()
        wait_for(desk.is_awake)
        view = desk.api.pair(t.PairRequest())
        assert view.url == desk.urls[0]
        ran = mini.cli("join", str(view.url), "--code", str(view.code), "--json")
        assert ran.returncode == 0, ran.stderr
        mini.start()
        cluster.wait_in_sync(desk, [mini])
        mini.say("work", "through the proxy", key="k1")
        wait_for(lambda: [row.text for row in desk.replies("work")])
        seen = (folder / "access.log").read_text()
        assert seen.count("POST /desk/api/pair 200") >= 2
    wait_for(lambda: not sees(mini, "desk"))  # there was no other way
    with proxy(folder):
        cluster.wait_in_sync(desk, [mini])
        wait_for(lambda: sees(mini, "desk"))
        mini.say("work", "and again", key="k2")
        wait_for(lambda: len(desk.replies("work")) == 2)
    rows = {row.nickname: row.urls for row in desk.api.machines().machines}
    assert rows["mini"] == [NOWHERE]
    assert not any("127.0.0.1" in url for urls in rows.values() for url in urls)
