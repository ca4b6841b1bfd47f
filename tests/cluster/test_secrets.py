"""A secret's value, planted wherever a person or an agent can put it, and then looked for in everything that
real nodes write: files, git objects, streams, answers, errors, what the commands print."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pygit2
import pytest

from instar_node.api.routes import ROUTES
from tests.cluster.harness import Cluster, Machine, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

PLANTED = "p1anted-Valu3-that-nobody-may-see"
MARK = b"[redacted:vault]"
AGENT = """
import json, os, sys
text = json.load(sys.stdin)["message"]["text"]
token = os.environ["TOKEN"]
print("stderr has", token, file=sys.stderr)
if "fail" in text:
    sys.exit("the token is " + token)
print(len(token), "characters:", token)
"""


def outspoken(machine: Machine) -> None:
    """Its agent tells its secret on every occasion, and its log misses nothing."""
    program = machine.home.path.parent / "agent.py"
    program.write_text(AGENT)
    machine.configure(
        agent=f'[agent]\nkind = "command"\ncommand = ["{sys.executable}", "{program}"]\n'
        'env_secrets = ["TOKEN"]\n'
    )
    config = machine.home.config.read_text()
    machine.home.config.write_text(config.replace("[node]", '[node]\nlog_level = "debug"', 1))


def test_a_planted_value_is_in_no_file_stream_answer_or_error(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini", configure=outspoken)
    assert desk.cli("secret", "set", "TOKEN", stdin=PLANTED).returncode == 0
    said = b"".join(misuse(desk, mini))
    answers = b"".join(body for machine in (desk, mini) for body in all_answers(machine))
    desk.say("last-word", "over")
    streams = b"".join(events(machine) for machine in (desk, mini))
    said += b"".join(printed(machine) for machine in (mini, desk))
    written = {path: path.read_bytes() for path in cluster.folder.rglob("*") if path.is_file()}
    written |= {Path(name): data for name, data in git_objects(cluster.folder)}
    for name in ("desk/mesh.db", "mini/mesh.db", "desk/logs/node.jsonl"):  # it did come by there
        assert MARK in b"".join(data for path, data in written.items() if name in str(path)), name
    assert MARK in answers
    assert MARK in said
    assert MARK in streams
    leaks = [str(path) for path, data in written.items() if PLANTED.encode() in data]
    assert leaks == []
    for name, text in (("answers", answers), ("events", streams), ("commands and daemons", said)):
        found = text.find(PLANTED.encode())
        assert found == -1, (name, text[max(0, found - 300) : found + 100])


def printed(machine: Machine) -> bytes:
    """End a node; what it has printed beside its first line. Its stderr is a file in the home."""
    process = machine.daemon._process
    assert process is not None
    assert process.stdout is not None
    process.terminate()
    return process.stdout.read().encode()


def misuse(desk: Machine, mini: Machine) -> Iterator[bytes]:
    """Say the value to every command that takes text; yields what they print."""
    for machine, *command in (
        (desk, "send", "work", f"is {PLANTED} right?", "--key", "k1", "--wait"),
        (mini, "send", "work", "please fail", "--key", "k2"),
        (mini, "send", "work", f"by key {PLANTED}", "--key", PLANTED),
        (desk, "transfer", "work", PLANTED),
        (mini, "transfer", PLANTED, "mini"),
        (desk, "nickname", PLANTED),
        (desk, "machines", "remove", PLANTED),
        (desk, "secret", "get", PLANTED.replace("-", "_")),
        (desk, "join", f"http://127.0.0.1:9/{PLANTED}", "--code", "able-acid-0000"),
        (desk, "hub", f"/{PLANTED}/hub.git"),
    ):
        ran = machine.cli(*command)
        yield ran.stdout.encode() + ran.stderr.encode()
    wait_for(lambda: abandoned(desk, "k2"), 40)
    for machine in (desk, mini):
        for words in ("log work", "outbox", "status", "doctor", "sync", "secret list", "machines"):
            ran = machine.cli(*words.split())
            yield ran.stdout.encode() + ran.stderr.encode()


def abandoned(machine: Machine, key: str) -> bool:
    rows = machine.api.messages("work", 0, 100).messages
    return any(row.key == key and row.state == "abandoned" for row in rows)


def ask(machine: Machine, path: str) -> http.client.HTTPResponse:
    address = urlsplit(machine.daemon.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    token = machine.home.api_token.read_text().strip()
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    return connection.getresponse()


def all_answers(machine: Machine) -> Iterator[bytes]:
    """Every route that is read but the one for the value itself, and refusals that quote what was asked."""
    reads = [route.path for route in ROUTES if route.verb == "GET" and route.path != "/secrets/{name}"]
    quoting = [f"/pool/machines/{PLANTED}", f"/no/such/{PLANTED}", f"/topics/work/messages?after={PLANTED}"]
    for path in (*reads, "/metrics", "/openapi.json", *quoting):
        answer = ask(
            machine, f"{path.format(topic='work', machine='desk')}{'' if '?' in path else '?topic=work'}"
        )
        yield answer.read()


def events(machine: Machine) -> bytes:
    """Every event there was up to the last message, as a screen gets them."""
    stream, text = ask(machine, "/events?after=0"), b""
    while b"last-word" not in text:
        line = stream.readline()
        assert line, "the stream ended"
        text += line
    return text


def git_objects(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What every repository holds: objects lie compressed, so that no file shows it."""
    for config in folder.rglob("config"):
        if (config.parent / "objects").is_dir():
            repository = pygit2.Repository(str(config.parent))
            for oid in repository.odb:
                yield f"{config.parent}:{oid}", repository.read(oid)[1]
