"""Records come home once, through brokers, gateways, nodes and links that fail in every way.

The same with mosquitto and with the gateway's own broker, into SQLite and into PostgreSQL.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from gateways import enrolled, gateway

from outpost.fleet import servers
from outpost.gateway import client, load, mqtt, schema, store
from outpost.gateway.load import Manners, Node
from outpost.paths import FIRMWARE
from outpost.toolchain.servers import Mosquitto, free_port

LIB = Path(__file__).parents[1] / "device/lib"


def made(count: int, records: int) -> list[Node]:
    return [Node(number, records) for number in range(1, count + 1)]


def keys(nodes: list[Node]) -> dict[int, bytes]:
    return {node.number: load.key(node.number) for node in nodes}


def home(nodes: list[Node], broker: mqtt.Where, manners: Manners, timeout_s: float = 240,
         **more) -> int:
    return asyncio.run(asyncio.wait_for(load.bring_home(nodes, broker, manners, **more),
                                        timeout_s))


def check(database: str | Path, nodes: list[Node], size: int = 32) -> None:
    """All records there, each once, and all acknowledged."""
    engine = store.connect(database)
    with engine.connect() as db:
        load.check(db.execute(schema.records.select().with_only_columns(
            schema.records.c.node, schema.records.c.seq, schema.records.c.payload)), nodes, size)
        heads = {row.node: row.head for row in db.execute(schema.lanes.select())}
        assert db.execute(schema.pieces.select()).first() is None
    assert heads == {node.number: node.total for node in nodes}
    engine.dispose()


class Gateway(servers.Gateway):
    """`outpost gateway` as a process of its own, with its own broker or at mosquitto."""

    def __init__(self, folder: Path, database: str | Path, broker: Mosquitto | None = None,
                 share: str = "") -> None:
        self.port = broker.port if broker else free_port()
        self.where = mqtt.Where("127.0.0.1", self.port)
        super().__init__(folder, database, [
            "--broker" if broker else "--listen",
            f"mqtt://127.0.0.1:{self.port}" if broker else f"127.0.0.1:{self.port}",
            *(["--share", share] if share else [])])

    def __enter__(self) -> "Gateway":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        super().start()
        assert self.look(60)


@contextlib.contextmanager
def broker_and_gateway(kind: str, database: str | Path, request):
    """A gateway in this process, with its own broker or with mosquitto."""
    broker = None
    if kind == "mosquitto":
        broker = mqtt.Where("127.0.0.1", request.getfixturevalue("mosquitto").port)
    with gateway(database, broker=broker) as where:
        yield where


BROKERS = pytest.mark.parametrize("kind", ["mosquitto", "embedded"])


@BROKERS
def test_doubled_overtaken_and_lost_frames(kind, database, request):
    nodes = made(20, 300)
    enrolled(database, keys(nodes))
    manners = Manners(records=7, doubled=0.2, overtaken=0.2, lost=0.05, patience_s=0.5)
    with broker_and_gateway(kind, database, request) as where:
        messages = home(nodes, where, manners)
    assert messages > 20 * 300 / 7
    check(database, nodes)


def stored(database: str | Path) -> int:
    engine = store.connect(database)
    with engine.connect() as db:
        count = sum(row.head for row in db.execute(schema.lanes.select()))
    engine.dispose()
    return count


def kill(victim: Gateway | Mosquitto, rng: random.Random) -> None:
    """kill -9, and up again."""
    victim.kill()
    time.sleep(rng.uniform(0, 0.3))
    victim.start()


@pytest.mark.parametrize(("kind", "database"), [
    ("mosquitto", "sqlite"), ("mosquitto", "postgresql"), ("embedded", "sqlite")],
    indirect=["database"])
def test_brokers_and_gateways_killed_at_random(kind, database, tmp_path):
    """kill -9, again and again, of the broker and of the gateway, until all is home."""
    nodes = made(12, 300)
    enrolled(database, keys(nodes))
    rng = random.Random(8)
    manners = Manners(records=4, window=2, doubled=0.1, overtaken=0.1, forgets=0.3,
                      patience_s=0.5)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto()) if kind == "mosquitto" else None
        one = stack.enter_context(Gateway(tmp_path, database, broker))
        kills = {"broker": 0, "gateway": 0}

        def strike() -> None:
            # by how far things are, not by the clock
            for share in (0.05, 0.3, 0.5, 0.7):
                while stored(database) < share * 12 * 300:
                    time.sleep(0.02)
                victim = rng.choice(["broker", "gateway"]) if broker else "gateway"
                kills[victim] += 1
                kill(broker if victim == "broker" else one, rng)

        killer = threading.Thread(target=strike)
        killer.start()
        home(nodes, one.where, manners)
        killer.join()
        assert one.stop() == 0  # it ends by itself when it is asked to
        one.start()
    assert sum(kills.values()) == 4 and kills["gateway"] and bool(kills["broker"]) == bool(broker)
    check(database, nodes)


async def deaf(reader, writer) -> None:
    """A broker that lets everybody in, and then neither reads nor says anything."""
    for answer in (b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"):
        _, size = await reader.readexactly(2)
        await reader.readexactly(size)
        writer.write(answer)
    writer.transport.pause_reading()


def test_an_answer_ends_with_the_connection(monkeypatch):
    """A broker that takes nothing holds the gateway up until it is gone, or for ANSWER_S."""
    async def answers(port: mqtt.Port) -> None:
        for _ in range(100):
            await port._reply([(1, bytes(1 << 20))])

    async def session() -> None:
        opened = []

        async def serve(reader, writer) -> None:
            opened.append(writer)
            await deaf(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = mqtt.Port(None, mqtt.Where("127.0.0.1", server.sockets[0].getsockname()[1]))
        runs = asyncio.create_task(port.run())
        await port.ready.wait()
        reply = asyncio.create_task(answers(port))
        assert (await asyncio.wait({reply}, timeout=0.3))[1]  # it waits as long as there is hope
        opened[0].transport.abort()
        await asyncio.wait_for(reply, 5)

        monkeypatch.setattr(client, "ANSWER_S", 0.2)
        await asyncio.wait_for(port.ready.wait(), 10)  # it has connected again
        await asyncio.wait_for(answers(port), 10)
        runs.cancel()
        server.close()

    asyncio.run(session())


def test_who_hears_nothing_lets_the_broker_wait(mosquitto, monkeypatch):
    """And has all of it in the end, in order."""
    monkeypatch.setattr(client, "MOST", 10)
    where = mqtt.Where("127.0.0.1", mosquitto.port)

    async def both() -> list[bytes]:
        async with client.connection(where) as ear, client.connection(where) as mouth:
            await ear.subscribe(["some/+", "other"])
            for number in range(3000):
                mouth.publish([("some/topic", b"%d" % number)], confirmed=number % 2 == 0)
            while mouth.flying:
                await asyncio.sleep(0.01)
            heard = []
            while len(heard) < 3000:
                async with asyncio.timeout(30):
                    more = await ear.heard()
                assert {topic for topic, _ in more} == {b"some/topic"}
                heard += [payload for _, payload in more]
            await ear.unsubscribe("some/+")
            return heard

    assert asyncio.run(both()) == [b"%d" % number for number in range(3000)]


@pytest.mark.parametrize("said", [
    b"\x20\x02\x00\x05", b"\x20\x01\x00", b"\x20\xff\xff\xff\xff\x7f", b"", b"HTTP/1.1 400 No",
    b"\x20\x02\x00\x00\x90\x03\x00\x01\x80", b"\x20\x02\x00\x00\x30\x01\x00"])
def test_a_client_among_strangers(said, monkeypatch):
    """Who refuses, talks nonsense or says nothing is no broker, and is told from one in time."""
    monkeypatch.setattr(client, "ANSWER_S", 0.3)

    async def speak(reader, writer) -> None:
        writer.write(said)

    async def visit() -> None:
        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        where = mqtt.Where("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(client.Gone):
            async with client.connection(where) as one:
                await one.subscribe(["topic"])
                await one.heard()
        server.close()

    asyncio.run(asyncio.wait_for(visit(), 10))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_two_workers_share_the_work(database, mosquitto, tmp_path):
    nodes = made(20, 200)
    enrolled(database, keys(nodes))
    with Gateway(tmp_path, database, mosquitto, "desk") as one, \
            Gateway(tmp_path, database, mosquitto, "desk") as two:
        home(nodes, one.where, Manners(records=5, overtaken=0.1, doubled=0.1, patience_s=1))
        two.kill()
        more = [Node(node.number, 300, acked=200) for node in nodes]
        home(more, one.where, Manners(records=5, patience_s=0.5))
    check(database, more)


# --- the node's own code, over links that fail ---

NODE = """
import sys
from node.board import Common, Late
from node.settings import Settings
from node.state import State
from node.uplink import mqtt, tcp
from node.uplink.session import Session
from ram import outbox
import time

class Board(Common):
    cause, node_id, key = 1, 1, bytes.fromhex(sys.argv[3])
    def __init__(self):
        super().__init__()
        self.began = time.ticks_ms()
        self.limit_us = 20000000
    def ticks_us(self): return time.ticks_diff(time.ticks_ms(), self.began) * 1000
    def now_s(self): return 1767600000
    def random32(self): return self.ticks_us() & 0xFFFF
    def battery_mv(self): return 3900
    def temperature_c(self): return 20
    def feed(self): pass

settings = Settings("no such file")  # so all as they are by default
settings.problem = None

mqtt.Mqtt.patience_ms = int(sys.argv[2])
box = outbox()
for seq in range(int(sys.argv[4])):
    box.put(seq % 4, 1 + seq % 5, 1767600000 + seq, b"record %d " % seq + bytes(seq % 50))
state = State()
board = Board()
try:
    link = mqtt.Mqtt(tcp.Tcp("127.0.0.1", int(sys.argv[1]), mqtt.Mqtt.patience_ms), 1)
    try:
        Session(board, settings, state, box, link).hold()
    finally:
        link.close()
    print("done", box.depth())
except OSError as error:
    print("error", error.errno, box.depth())
except Late:
    print("late", box.depth())
"""
KEY = load.key(1)
COUNT = 200


@pytest.fixture
def born(micropython, tmp_path):
    """A function that starts a node on MicroPython, which reports to `port`."""
    def start(port: int, patience_ms: int = 2000, count: int = COUNT) -> subprocess.Popen[str]:
        (tmp_path / "reports.py").write_text(NODE)
        return subprocess.Popen(
            [micropython, tmp_path / "reports.py", str(port), str(patience_ms), KEY.hex(),
             str(count)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"MICROPYPATH": f"{FIRMWARE}:{LIB}:.frozen"})

    return start


@pytest.fixture
def node(born):
    """A function that lets a node report to `port`; returns what came of it."""
    def run(*how: int) -> list[str]:
        with born(*how) as process:
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said.split()

    return run


class Proxy:
    """A TCP proxy whose `manner(direction, data)` is what becomes of data: bytes, or None."""

    def __init__(self, port: int, manner) -> None:
        self.target, self.manner = port, manner
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.open = [self.server]
        self.frozen: list[socket.socket] = []

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()

    def cut(self) -> None:
        """End all connections there are."""
        while len(self.open) > 1:
            one = self.open.pop()
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def freeze(self) -> None:
        """Let all connections there are stand half open: nothing passes any more."""
        self.frozen += self.open[1:]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self.server.accept()
                try:
                    theirs = socket.create_connection(("127.0.0.1", self.target))
                except OSError:  # the broker is down
                    ours.close()
                    continue
                self.open += [ours, theirs]
                for name, a, b in (("up", ours, theirs), ("down", theirs, ours)):
                    threading.Thread(target=self._pass, args=(name, a, b), daemon=True).start()

    def _pass(self, name: str, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := a.recv(4096):
                data = self.manner(name, data)
                if data is None or a in self.frozen:
                    time.sleep(600)  # half open: it is there, and nothing comes any more
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)


@BROKERS
def test_the_nodes_own_mqtt_through_a_good_link(kind, database, request, node):
    enrolled(database, {1: KEY})
    with broker_and_gateway(kind, database, request) as where:
        assert node(where.port) == ["done", "0"]
        assert node(where.port) == ["done", "0"]  # the same again: it is only answered
    engine = store.connect(database)
    with engine.connect() as db:
        rows = db.execute(schema.records.select()).all()
        beat = json.loads(db.execute(schema.status.select()).one().items)
    engine.dispose()
    assert len(rows) == COUNT and beat["battery_mv"] == 3900
    assert beat["waiting"] == {"0": 50, "1": 50, "2": 50, "3": 50}
    for row in rows:
        number = int(row.payload.split()[1])
        assert (row.lane, row.seq) == (number % 4, number // 4 + 1)
        assert (row.kind, row.time_s) == (1 + number % 5, 1767600000 + number)
        assert row.payload == b"record %d " % number + bytes(number % 50)


@BROKERS
def test_half_open_connections_end_with_the_deadline(kind, tmp_path, request, node):
    """The link dies after so many bytes, either way, without a word."""
    database = enrolled(tmp_path / "gateway.db", {1: KEY})
    outcomes = set()
    with broker_and_gateway(kind, database, request) as where:
        for way in ("up", "down"):
            for alive in (0, 3, 30, 60, 200):
                passed = {"up": 0, "down": 0}

                def manner(name: str, data: bytes, way=way, alive=alive, passed=passed):
                    passed[name] += len(data)
                    return None if name == way and passed[name] > alive else data

                with Proxy(where.port, manner) as proxy:
                    result = node(proxy.port, 300)
                outcomes.add(result[0])
                assert result[0] == "error" or alive > 60, (way, alive, result)
        assert node(where.port) == ["done", "0"]
    assert "error" in outcomes
    check_rows(database)


def test_the_gateways_own_connection_half_open(tmp_path, mosquitto, monkeypatch):
    """A router forgets it, say; the gateway notices by itself, and nodes go on meanwhile."""
    monkeypatch.setattr(client, "KEEPALIVE_S", 2)
    nodes = made(5, 100)
    database = enrolled(tmp_path / "gateway.db", keys(nodes))
    here = mqtt.Where("127.0.0.1", mosquitto.port)
    with Proxy(mosquitto.port, lambda name, data: data) as proxy, \
            gateway(database, broker=mqtt.Where("127.0.0.1", proxy.port)):
        home(nodes, here, Manners(records=5))
        proxy.freeze()
        more = [Node(node.number, 200, acked=100) for node in nodes]
        home(more, here, Manners(records=5, patience_s=0.5))
        assert proxy.frozen
    check(database, more)


def check_rows(database: str | Path) -> None:
    engine = store.connect(database)
    with engine.connect() as db:
        found = [int(row.payload.split()[1]) for row in db.execute(schema.records.select())]
    engine.dispose()
    assert sorted(found) == list(range(COUNT))


@BROKERS
def test_a_slow_link_in_crumbs(kind, tmp_path, request, node):
    """Five bytes at a time with a pause between: slower than a modem of old, but it gets there."""
    database = enrolled(tmp_path / "gateway.db", {1: KEY})

    def manner(name: str, data: bytes) -> bytes:
        time.sleep(0.0005 * len(data))
        return data

    with broker_and_gateway(kind, database, request) as where, \
            Proxy(where.port, manner) as proxy:
        assert node(proxy.port, 10_000) == ["done", "0"]
    check_rows(database)


@BROKERS
def test_a_node_killed_at_any_moment(kind, tmp_path, request, born, node):
    """kill -9 once so many bytes have passed, either way; what it has is in its flash."""
    database = enrolled(tmp_path / "gateway.db", {1: KEY})
    with broker_and_gateway(kind, database, request) as where:
        for alive in (0, 20, 60, 110, 200, 400, 800, 1600, 3200):
            passed, begun = [], threading.Event()

            def manner(name: str, data: bytes, alive=alive, passed=passed, begun=begun):
                passed.append(len(data))
                if sum(passed) > alive and begun.wait(60):
                    process.kill()
                return data

            with Proxy(where.port, manner) as proxy, born(proxy.port) as process:
                begun.set()
                assert process.wait(60) == -signal.SIGKILL, alive
        assert node(where.port) == ["done", "0"]
    check_rows(database)


@pytest.mark.parametrize("said", [
    b"", b"\x20\x02\x00\x05", b"\x20\x02\x00\x02", b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x20\xff\xff\xff\xff\x7f", b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00" + b"\xd0\x00" * 500,
    b"\x20\x02\x00\x00\x90\x03\x00\x01\x80", b"\x20\x02\x00\x00\x90\x03\x00\x01\x00" + bytes(99),
    b"\x20\x02\x00\x00\x90\x03\x00\x01\x00" + b"\x30\x05\x00\x09xxx" * 300,
    b"\x20\x02\x00\x00\x90\x03\x00\x01\x00" + b"\x32\x02\x00\x00" * 300,
    os.urandom(3000)])
@pytest.mark.parametrize("closes", [True, False])
def test_somebody_who_is_no_broker(node, said, closes):
    """Whatever it says and however it ends, the node gives up in time and keeps its records."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def speak() -> None:
            with contextlib.suppress(OSError):
                line, _ = server.accept()
                with line:
                    line.sendall(said)
                    if not closes:
                        line.settimeout(60)
                        while line.recv(4096):
                            pass

        threading.Thread(target=speak, daemon=True).start()
        result = node(server.getsockname()[1], 200, 20)
    assert result[0] == "error" and result[2] == "20"


def test_nobody_is_there(node):
    result = node(free_port(), 500, 20)
    assert result == ["error", "111", "20"]  # ECONNREFUSED, at once


# --- a million ---


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_a_million_messages(kind, tmp_path, monkeypatch, capsys, count=1000, each=1000):
    """A record each, while everything is killed; each row once, whatever the order.

    A third of the nodes is behind a link that is slow, cut, or half open by turns.
    """
    nodes = made(count, each)
    database = enrolled(tmp_path / "gateway.db", keys(nodes))
    manners = Manners(records=1, window=8, doubled=0.02, overtaken=0.1, lost=0.001, forgets=0.3,
                      patience_s=3)  # as firmware/node/uplink/mqtt.py has it
    monkeypatch.setattr(client, "KEEPALIVE_S", 6)  # a half-open link is noticed in seconds
    rng, began = random.Random(20), time.monotonic()
    slow_s = [0.0]
    struck: Counter[str] = Counter()

    def manner(name: str, data: bytes) -> bytes:
        time.sleep(slow_s[0])
        return data

    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto()) if kind == "mosquitto" else None
        one = stack.enter_context(Gateway(tmp_path, database, broker))
        proxy = stack.enter_context(Proxy(one.port, manner))
        db = stack.enter_context(contextlib.closing(
            sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False)))

        def strike() -> None:
            blows = ["gateway", "broker" if broker else "gateway", "nodes", "half open", "slow"]
            for share in range(2, 98, 2):
                while (home := db.execute("SELECT TOTAL(head) FROM lanes").fetchone()[0]) \
                        < share / 100 * count * each:
                    time.sleep(0.1)
                blow = rng.choice(blows)
                struck[blow] += 1
                with capsys.disabled():
                    print(f"{time.monotonic() - began:6.1f} s {home:9,.0f} stored; {blow}")
                slow_s[0] = 0.01 if blow == "slow" else 0.0
                match blow:
                    case "gateway" | "broker":
                        kill(broker if blow == "broker" else one, rng)
                    case "nodes":
                        proxy.cut()
                    case "half open":
                        proxy.freeze()

        killer = threading.Thread(target=strike, daemon=True)
        killer.start()

        async def all_home() -> int:
            return sum(await asyncio.gather(
                load.bring_home([node for node in nodes if node.number % 3], one.where, manners,
                                connections=20),
                load.bring_home([node for node in nodes if not node.number % 3],
                                mqtt.Where("127.0.0.1", proxy.port), manners, seed=2,
                                connections=10)))

        messages = asyncio.run(asyncio.wait_for(all_home(), 3600))
        killer.join()
    assert messages >= count * each and sum(struck.values()) == 48
    check(database, nodes)
    with capsys.disabled():
        print(f"{kind}: {messages:,} messages, {count * each:,} rows, each once, "
              f"in {time.monotonic() - began:.0f} s; {dict(struck)}")
