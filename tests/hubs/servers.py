"""Real servers on loopback: a web server with ``git http-backend``, an ssh server, etcd.

They are system packages (lighttpd, openssh-server, etcd-server; ``.ci/run`` installs them where it may). A
test that needs one that is not installed is skipped and says which.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.ports import free_port

READY_S = 20.0


def program(name: str, package: str) -> str:
    """The path of a system program; the test is skipped where it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server in a process group of its own until its port answers, and kill all of it in the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + READY_S
        while not _answers(port):
            assert process.poll() is None, f"{command[0]} ended: {log.read_text(errors='replace')}"
            assert time.monotonic() < deadline, f"{command[0]} is not up: {log.read_text(errors='replace')}"
            time.sleep(0.02)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def git_backend() -> str:
    """The CGI program of git that serves repositories over HTTP."""
    core = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    return program(f"{core}/git-http-backend", "git")


LIGHTTPD = """
server.document-root = "{root}"
server.port = {port}
server.bind = "127.0.0.1"
server.modules = ("mod_setenv", "mod_alias", "mod_auth", "mod_authn_file", "mod_cgi")
server.max-request-size = 4096
setenv.set-environment = ( "GIT_PROJECT_ROOT" => "{root}", "GIT_HTTP_EXPORT_ALL" => "1" )
alias.url = ( "/git" => "{backend}", "/locked" => "{backend}", "/public" => "{backend}" )
cgi.assign = ( "" => "" )
$HTTP["url"] =~ "^/page" {{
    cgi.assign = ()
}}
$HTTP["url"] =~ "^/git/" {{
    setenv.add-environment = ( "REMOTE_USER" => "writer" )
}}
auth.backend = "plain"
auth.backend.plain.userfile = "{users}"
auth.require = ( "/locked" => ( "method" => "basic", "realm" => "hub", "require" => "valid-user" ) )
"""


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve the bare repositories in ``folder/www``; yields the base URL.

    ``/git/NAME`` may be read and written, ``/public/NAME`` only read, ``/locked/NAME`` wants a password
    (``ada``, ``pass``). What lies under ``/page…`` is what it is.
    """
    lighttpd = program("lighttpd", "lighttpd")
    root, port = folder / "www", free_port()
    root.mkdir()
    users = folder / "users"
    users.write_text("ada:pass\n")
    config = folder / "lighttpd.conf"
    config.write_text(LIGHTTPD.format(root=root, port=port, backend=git_backend(), users=users))
    with serving([lighttpd, "-D", "-f", str(config)], port, folder / "lighttpd.log"):
        yield f"http://127.0.0.1:{port}"


SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 200
MaxSessions 200
SetEnv SHLVL=2
"""
"""``SHLVL``: bash takes itself for a shell in a shell, and leaves the person's ``.bashrc`` alone, which may
take longer than git itself."""


@contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[str, str]]:
    """An ssh server for this account; yields ``(base URL, GIT_SSH_COMMAND that may log in)``."""
    sshd, keygen = program("sshd", "openssh-server"), program("ssh-keygen", "openssh-client")
    for key in ("host_key", "client_key"):
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=30
        )
    port = free_port()
    shutil.copy(folder / "client_key.pub", folder / "authorized")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a privileged server locks its unprivileged half in
    config = folder / "sshd_config"
    config.write_text(SSHD.format(port=port, folder=folder))
    user = pwd.getpwuid(os.geteuid()).pw_name
    command = f"ssh -F none -i {folder}/client_key -o IdentitiesOnly=yes -o UserKnownHostsFile={folder}/known"
    with serving([sshd, "-D", "-e", "-f", str(config)], port, folder / "sshd.log"):
        yield f"ssh://{user}@127.0.0.1:{port}", command


@contextmanager
def etcd_server(folder: Path) -> Iterator[str]:
    """One etcd in ``folder``; yields its ``etcd://host:port``."""
    etcd = program("etcd", "etcd-server")
    client, peer = free_port(), free_port()
    command = [
        etcd,
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    ]
    with serving(command, client, folder / "etcd.log"):
        deadline = time.monotonic() + READY_S
        while b'"true"' not in _health(client):
            assert time.monotonic() < deadline, (folder / "etcd.log").read_text(errors="replace")
            time.sleep(0.05)
        yield f"etcd://127.0.0.1:{client}"


def _health(port: int) -> bytes:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except OSError:  # up, and without a leader yet
        return b""
