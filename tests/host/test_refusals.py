"""What is wrong with a database, a broker or a port is told in a line; nothing is half written."""

import os
import socket
import sqlite3
import subprocess
import sys

import pytest
from gateways import enrolled
from typer.testing import CliRunner

from outpost.cli import app
from outpost.errors import OutpostError
from outpost.gateway.schema import commands, documents
from outpost.gateway.store import connect
from outpost.provision import Node, save

VERBS = {
    "nodes": ["nodes"], "node": ["nodes", "7"], "command": ["command", "7", "report"],
    "commands": ["command", "7"], "settings": ["settings", "7", "wake_s=60"],
    "windows": ["windows"], "rollout": ["rollout"], "push": ["push", "motion", "--nodes", "7"]}
GATEWAY = ["gateway", "--listen", "127.0.0.1:0"]
NOBODY = "postgresql+psycopg://somebody:geheim@127.0.0.1:1/outpost"


def refused(arguments: list[str], *words: str) -> str:
    """The one line with which a verb ends."""
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, OutpostError), (done.output, done.exc_info)
    said = str(done.exception)
    assert all(word in said for word in words) and "\n" not in said, said
    assert "geheim" not in said + done.output and "SELECT" not in said
    return said


@pytest.mark.parametrize("verb", [*VERBS, "gateway"])
def test_a_file_that_is_no_database(verb, tmp_path):
    file = tmp_path / "broken.db"
    file.write_bytes(noise := os.urandom(5000))
    refused([*VERBS.get(verb, GATEWAY), "--database", str(file)], "broken.db", "not a database")
    assert file.read_bytes() == noise and [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("verb", VERBS)
def test_a_database_of_another_program(verb, tmp_path):
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE tea (cups)")
    db.close()
    refused([*VERBS[verb], "--database", str(file)], "other.db")
    with sqlite3.connect(file) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("tea",)]
    db.close()


@pytest.mark.parametrize("verb", [*VERBS, "gateway"])
def test_a_database_server_that_is_not_there(verb):
    refused([*VERBS.get(verb, GATEWAY), "--database", NOBODY], "127.0.0.1", "refused")


@pytest.mark.parametrize("url", ["foo://somebody:geheim@bar", "oracle://u:geheim@host/name",
                                 "postgresql+psycopg://u:geheim@host:port/name"])
def test_what_is_no_url_of_a_database(url):
    for arguments in (GATEWAY, VERBS["nodes"], VERBS["windows"]):
        refused([*arguments, "--database", url], "postgresql+psycopg://")


def test_a_folder_that_is_not_there(tmp_path):
    refused([*GATEWAY, "--database", str(tmp_path / "none/x.db")], "none/x.db", "unable to open")
    assert not list(tmp_path.iterdir())


def test_a_heavy_model_that_is_not_there(tmp_path):
    refused([*GATEWAY, "--heavy", "nothing", "--database", str(tmp_path / "x.db")], "nothing")
    assert not list(tmp_path.iterdir())


def test_certificates_that_are_not_there(tmp_path):
    ca = tmp_path / "ca.pem"
    for text in (None, "no certificate"):
        if text:
            ca.write_text(text)
        refused([*GATEWAY, "--broker", "mqtts://somebody:geheim@127.0.0.1:1", "--ca", str(ca),
                 "--database", str(tmp_path / "x.db")], "ca.pem")
    assert not (tmp_path / "x.db").exists()


def test_a_port_that_is_taken_or_none(tmp_path):
    """In a process, for what a broker's own log says comes by another way."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (taken.getsockname()[1], 99999):
            done = subprocess.run(
                [sys.executable, "-m", "outpost", "gateway", "--listen", f"127.0.0.1:{port}",
                 "--database", tmp_path / "x.db"], capture_output=True, text=True, timeout=120,
                check=False)
            assert done.returncode == 1 and done.stdout == ""
            assert done.stderr.startswith("error: nobody can listen at 127.0.0.1:"), done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_a_node_that_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    file = enrolled(tmp_path / "x.db", {7: bytes(32)})
    for verb in ("nodes", "command", "commands", "settings"):
        arguments = ["8" if one == "7" else one for one in VERBS[verb]]
        refused([*(arguments if "8" in arguments else [*arguments, "8"]), "--database", str(file)],
                "no node 8")
    engine = connect(file)
    with engine.connect() as db:
        assert not db.execute(commands.select()).first() and not db.execute(
            documents.select()).first()
    engine.dispose()
    save(Node(8, bytes(32), "esp32"))  # flashed here, and not heard of yet
    done = CliRunner().invoke(app, ["settings", "8", "wake_s=60", "--database", str(file)])
    assert done.exit_code == 0, done.exception
