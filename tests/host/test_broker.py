"""The gateway's own broker: what MQTT 3.1.1 demands of it, and what it does to those who don't
keep to it, are too slow, or are gone.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from outpost.cli import app
from outpost.gateway import broker as brokers
from outpost.gateway import packets
from outpost.gateway.broker import Broker, Connection
from outpost.gateway.packets import PacketError

PING, PONG = b"\xc0\x00", (0xD0, b"")
WAIT_S = 30  # for what must come


def string(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">H", len(data)) + data


def connect(name: str = "", flags: int = 2, keepalive_s: int = 60, level: int = 4,
            protocol: str = "MQTT", more: bytes = b"") -> bytes:
    return packets.packet(0x10, string(protocol) + bytes((level, flags))
                          + struct.pack(">H", keepalive_s) + string(name) + more)


def subscribe(*filters: str, qos: int = 0, number: int = 7) -> bytes:
    return packets.packet(0x82, struct.pack(">H", number)
                          + b"".join(string(one) + bytes((qos,)) for one in filters))


def publish(topic: str, payload: bytes, number: int = 0) -> bytes:
    return packets.published(topic, payload, number)


class Line:
    """Somebody at the broker, byte by byte."""

    def __init__(self, port: int, *said: bytes, small: bool = False) -> None:
        self.socket = socket.socket()
        if small:  # what isn't read soon stays at the broker
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(("127.0.0.1", port))
        self.send(*said)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *said: bytes) -> None:
        self.socket.sendall(b"".join(said))

    def _bytes(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def hear(self) -> tuple[int, bytes]:
        """The next packet: first byte, body."""
        first, size, shift = self._bytes(1)[0], 0, 0
        while True:
            byte = self._bytes(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self._bytes(size)

    def ended(self) -> bool:
        """Whether the broker hangs up without another word."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


@pytest.fixture
def running() -> Iterator[SimpleNamespace]:
    """A broker in a thread of its own: `.port`, `.broker`, `.call(function)`, in its loop."""
    loop, up, found = asyncio.new_event_loop(), threading.Event(), SimpleNamespace(errors=[])
    stop = asyncio.Event()
    loop.set_exception_handler(lambda _, context: found.errors.append(context))

    async def run() -> None:
        async with brokers.embedded("127.0.0.1", 0) as (found.broker, where):
            found.port = where.port
            up.set()
            await stop.wait()

    def call(function, *args):
        async def there():
            return function(*args)
        return asyncio.run_coroutine_threadsafe(there(), loop).result(WAIT_S)

    found.call, found.loop = call, loop
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert up.wait(WAIT_S)
    yield found
    loop.call_soon_threadsafe(stop.set)
    thread.join(WAIT_S)
    loop.close()
    assert not found.errors, found.errors


def until(true) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def welcome(port: int, name: str = "", *said: bytes, **how) -> Line:
    line = Line(port, connect(name), **how)
    assert line.hear() == (0x20, b"\0\0")
    line.send(*said)
    return line


# --- the standard, by its numbers ---


def test_who_is_welcome_and_who_is_not(running):
    for said, answer in [
        (connect("node"), b"\0\0"),
        (connect(""), b"\0\0"),
        (connect("node", flags=0), b"\0\0"),  # a session is not kept, and said not to be
        (connect("a", 0xC2, more=string("user") + string(b"\xff")), b"\0\0"),
        (connect("a", 0x2E, more=string("will") + string(b"\xff")), b"\0\0"),
        (connect("node", level=3), b"\0\x01"),  # 3.1.2-2
        (connect("node", level=5), b"\0\x01"),
        (connect("", flags=0), b"\0\x02"),  # 3.1.3-8
    ]:
        with Line(running.port, said) as line:
            assert line.hear() == (0x20, answer), said
            if answer != b"\0\0":
                assert line.ended(), said
            else:
                line.send(PING)
                assert line.hear() == PONG


@pytest.mark.parametrize("said", [
    PING, subscribe("a"), publish("a", b"x"), b"\xe0\x00",  # 3.1.0-1: before CONNECT
    connect("a", protocol="MQIsdp"), connect("a", flags=3), connect("a", flags=0x0A),
    connect("a", flags=0x1E, more=string("w") + string("")), connect("a", flags=0x22),
    connect("a", flags=0x42, more=string("word")), connect(b"\xff"), connect("a\0"),
    connect("a", flags=6, more=string("w/+") + string("")), connect("a", flags=6),
    connect("a", more=b"x"), connect("a")[:1] + b"\x00", b"\x10\x02\x00\x04",
    b"\x11" + connect("a")[1:], b"\x10\xff\xff\xff\xff\x01", b"\x10\xff\xff\xff\x7f",
    b"GET / HTTP/1.1\r\n\r\n", bytes(50),
])
def test_no_way_to_begin(running, said):
    with Line(running.port, said) as line:
        assert line.ended()


@pytest.mark.parametrize("said", [
    connect("a"),  # 3.1.0-2
    b"\x00\x00", b"\xf0\x00", b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00", b"\xd0\x00",
    b"\xb0\x02\x00\x01", b"\x50\x02\x00\x01", b"\x62\x02\x00\x01", b"\x70\x02\x00\x01",
    b"\xc1\x00", b"\xe1\x00", b"\x41\x02\x00\x01", b"\x40\x02\x00\x00", b"\x40\x01\x00",
    b"\x80" + subscribe("a")[1:], b"\xa0\x05\x00\x01\x00\x01a",
    subscribe("a", number=0), subscribe("a", qos=3), subscribe(),
    b"\x82\x05\x00\x07\x00\x01a", b"\x82\x06\x00\x07\x00\x02a\x00", b"\xa2\x02\x00\x07",
    subscribe(""), subscribe("a/#/b"), subscribe("a#"), subscribe("a+/b"), subscribe("a\0"),
    publish("", b"x"), publish("a/+", b"x"), publish("#", b""), publish("a\0b", b"x"),
    b"\x30\x04\x00\x02\xc3\x28", b"\x30\x04\x00\x03ab", b"\x30\x01\x00", b"\x32\x03\x00\x01a",
    b"\x32\x05\x00\x01a\x00\x00", b"\x38\x03\x00\x01a",
    b"\x34\x05\x00\x01a\x00\x01", b"\x36\x05\x00\x01a\x00\x01",  # QoS 2 isn't spoken here
    packets.packet(0x30, string("a") + bytes(packets.LARGEST))[:5],  # from its head alone
])
def test_who_speaks_badly_is_cut_off_and_nobody_else(running, said):
    with welcome(running.port, "good", subscribe("#")) as good, welcome(running.port, "a") as bad:
        assert good.hear() == (0x90, b"\0\x07\0")
        bad.send(said)
        assert bad.ended()
        with welcome(running.port, "a", publish("still", b"here")) as _:
            assert good.hear() == (0x30, string("still") + b"here")
    until(lambda: not running.broker.connections)
    assert not running.broker.named


@pytest.mark.parametrize(("topic_filter", "yes", "no"), [
    ("a/b", ["a/b"], ["a", "a/b/c", "/a/b", "a/b/", "A/b", "a/bb"]),
    ("sport/tennis/player1/#", ["sport/tennis/player1", "sport/tennis/player1/ranking",
                                "sport/tennis/player1/score/x"], ["sport/tennis/player11"]),
    ("#", ["a", "/", "a/b/c", "/finance", "a\nb"], ["$SYS/a"]),  # 4.7.2-1
    ("sport/tennis/+", ["sport/tennis/player1", "sport/tennis/"], ["sport/tennis/p/ranking"]),
    ("sport/+", ["sport/"], ["sport"]),
    ("+", ["finance"], ["/finance", "$SYS"]), ("+/+", ["/finance"], ["$SYS/x"]),
    ("/+", ["/finance"], []), ("+/monitor/Clients", [], ["$SYS/monitor/Clients"]),
    ("$SYS/#", ["$SYS/", "$SYS"], []), ("$SYS/monitor/+", ["$SYS/monitor/Clients"], []),
    ("a.c/+", ["a.c/x"], ["abc/x"]), ("outpost/+/up", ["outpost/7/up"], ["outpost/7/8/up"]),
])
def test_which_topics_a_filter_means(topic_filter, yes, no):
    pattern = packets.pattern(topic_filter)
    for topic in [*yes, *no]:
        assert bool(pattern.fullmatch(topic) if pattern else topic_filter == topic) \
            == (topic in yes), topic


def test_messages_come_once_at_the_lower_qos(running):
    with welcome(running.port, "ear") as ear, welcome(running.port, "mouth") as mouth:
        ear.send(subscribe("a/+", qos=2, number=1), subscribe("a/b", "$share/x/a/b", number=2))
        assert ear.hear() == (0x90, b"\0\x01\x01")  # 1 is what is granted
        assert ear.hear() == (0x90, b"\0\x02\0\x80")
        mouth.send(publish("a/b", b"one", 500))
        assert mouth.hear() == (0x40, struct.pack(">H", 500))
        assert ear.hear() == (0x32, string("a/b") + b"\0\x01one")  # by both filters, once
        ear.send(b"\x40\x02\0\x01")
        mouth.send(publish("a/b", b"two"), publish("other", b"x"), publish("a/c", b"", 3))
        assert ear.hear() == (0x30, string("a/b") + b"two")
        assert ear.hear() == (0x32, string("a/c") + b"\0\x02")
        mouth.send(b"\x3b" + publish("a/b", b"thrice", 4)[1:])  # a duplicate, to be retained
        assert ear.hear() == (0x32, string("a/b") + b"\0\x03thrice")
        ear.send(packets.packet(0xA2, b"\0\x09" + string("a/+") + string("never")))
        assert ear.hear() == (0xB0, b"\0\x09")
        mouth.send(publish("a/c", b"three"), publish("a/b", b"four", 5))
        assert ear.hear() == (0x30, string("a/b") + b"four")
        with welcome(running.port, "late", subscribe("a/b"), PING) as late:
            assert late.hear()[0] == 0x90 and late.hear() == PONG  # nothing was retained


def test_the_second_of_a_name_takes_over_and_a_will_is_done(running):
    will = {"flags": 0x0E, "more": string("wills") + string("gone")}
    with welcome(running.port, "heir", subscribe("wills", qos=1)) as heir:
        heir.hear()
        first = Line(running.port, connect("node", **will), subscribe("x"))
        assert first.hear() == (0x20, b"\0\0") and first.hear()[0] == 0x90
        second = Line(running.port, connect("node", **will), subscribe("x"))
        assert first.ended()
        assert heir.hear() == (0x32, string("wills") + b"\0\x01gone")  # the first one's
        assert second.hear() == (0x20, b"\0\0") and second.hear()[0] == 0x90
        heir.send(publish("x", b"for one"))
        assert second.hear() == (0x30, string("x") + b"for one")
        second.send(b"\xe0\x00")  # who takes leave has no will
        assert second.ended()
        heir.send(PING)
        assert heir.hear() == PONG
        first.socket.close()
        second.socket.close()


def test_bytes_come_in_any_pieces(running):
    said = connect("a") + subscribe("t") + publish("t", b"x" * 300, 9) + PING
    with Line(running.port) as line:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in said:
            line.send(bytes((byte,)))
        assert [line.hear()[0] for _ in range(5)] == [0x20, 0x90, 0x30, 0x40, 0xD0]
    with Line(running.port, connect("a"), subscribe("t"), publish("t", b"x", 9) * 3000) as line:
        heard = [line.hear()[0] for _ in range(6002)]
        assert heard.count(0x40) == heard.count(0x30) == 3000


# --- those who are slow, or gone ---


def test_silence_ends_a_connection(running, monkeypatch):
    monkeypatch.setattr(brokers, "SWEEP_S", 0.05)
    with Line(running.port, connect("brief", keepalive_s=1)) as silent, \
            Line(running.port, connect("any", keepalive_s=0)) as free:
        assert silent.hear() == free.hear() == (0x20, b"\0\0")
        assert silent.ended()  # 3.1.2-24
        free.send(PING)
        assert free.hear() == PONG
    for one in list(running.broker.connections):
        running.call(setattr, one, "until_s", 0.0)
    monkeypatch.setattr(brokers, "HELLO_S", 0.2)
    with Line(running.port) as mute:
        assert mute.ended()


def test_a_slow_link_costs_bounded_memory_and_nobody_else(running):
    with welcome(running.port, "slow", subscribe("t", qos=1), small=True) as slow, \
            welcome(running.port, "quick", subscribe("t")) as quick, \
            welcome(running.port, "mouth") as mouth:
        assert slow.hear()[0] == quick.hear()[0] == 0x90
        stuck = running.broker.named["slow"]
        sent = 0
        while not running.broker.dropped:
            mouth.send(publish("t", bytes(1000)))
            assert quick.hear() == (0x30, string("t") + bytes(1000))
            sent += 1
            assert sent < 100_000
        waits = running.call(lambda: stuck.transport.get_write_buffer_size() + stuck._waiting)
        assert waits <= 2 * brokers.ROOM + 2000
        mouth.send(*[publish("t", bytes(1000))] * 5)  # dropped, too
        for _ in range(5):
            quick.hear()
        assert running.call(lambda: stuck.held)
        heard = 0
        while heard < sent - running.broker.dropped + 5:  # now it takes what has waited …
            assert slow.hear()[0] == 0x30
            heard += 1
        mouth.send(publish("t", b"news"))
        assert slow.hear() == (0x30, string("t") + b"news")  # … and hears what is new
        slow.send(PING)
        assert slow.hear() == PONG


def test_who_confirms_nothing_gets_so_many_and_no_more(running, monkeypatch):
    monkeypatch.setattr(brokers, "FLYING", 5)
    with welcome(running.port, "ear", subscribe("t", qos=1)) as ear, \
            welcome(running.port, "mouth") as mouth:
        ear.hear()
        mouth.send(*(publish("t", b"%d" % i, i) for i in range(1, 9)))
        numbers = [ear.hear()[1][3:5] for _ in range(5)]
        assert len(set(numbers)) == 5
        for _ in range(8):
            mouth.hear()
        assert running.broker.dropped == 3
        ear.send(b"\x40\x02" + numbers[2], b"\x40\x02\x99\x99", PING)
        assert ear.hear() == PONG
        mouth.send(publish("t", b"again", 10))
        assert ear.hear()[1].endswith(b"again")


def test_the_gateway_takes_its_time_and_nothing_is_lost(running):
    """Beyond its inbox nodes wait, unread and unconfirmed; they are not cut off for that."""
    taken, may = [], threading.Semaphore(0)

    class Slow:
        async def put(self, frames, reply):
            while not may.acquire(blocking=False):
                await asyncio.sleep(0.001)
            taken.extend(frames)

    async def listen():
        port = brokers.Port(Slow(), running.broker, "outpost")
        task = asyncio.create_task(port.run())
        await port.ready.wait()
        return port, task

    port, task = asyncio.run_coroutine_threadsafe(listen(), running.loop).result(WAIT_S)
    each = brokers.INBOX
    lines = [welcome(running.port, f"node {i}") for i in range(3)]
    threads = [threading.Thread(target=line.send, args=[
        publish(f"outpost/{i}/up", b"%d %d" % (i, k), 1 + k) for k in range(each)])
        for i, line in enumerate(lines)]
    for thread in threads:
        thread.start()
    until(lambda: running.broker.full)
    assert brokers.INBOX - 1 <= len(port._inbox) <= brokers.INBOX  # it may have one in hand
    with welcome(running.port, "new") as new:
        new.send(PING)
        assert new.hear() == PONG  # who doesn't publish is served as ever
        new.send(publish("outpost/9/up", b"9 0"))
        until(lambda: running.call(lambda: running.broker.named["new"].held))
        assert len(port._inbox) <= brokers.INBOX
        running.call(running.broker.cut, 1e9)  # long after; but they could not speak
        may.release(3 * each + 1)
        until(lambda: len(taken) == 3 * each + 1)
        new.send(PING)
        assert new.hear() == PONG
    for i, line in enumerate(lines):
        assert [frame for frame in taken if frame.startswith(b"%d " % i)] \
            == [b"%d %d" % (i, k) for k in range(each)]
        for k in range(each):
            assert line.hear() == (0x40, struct.pack(">H", 1 + k))
    running.call(running.broker.cut, 1e9)
    for line in lines:
        assert line.ended()
        line.socket.close()
    for thread in threads:
        thread.join(WAIT_S)
    running.loop.call_soon_threadsafe(task.cancel)


def test_one_connection_too_many(running, monkeypatch):
    running.broker.most = 2
    with welcome(running.port, "one") as one, welcome(running.port, "two"):
        with Line(running.port) as three:
            assert three.ended()
        one.send(b"\xe0\x00")
        assert one.ended()
        until(lambda: len(running.broker.connections) == 1)
        with welcome(running.port, "three"):
            pass
    monkeypatch.setattr(brokers.resource, "getrlimit", lambda _: (256, 1024))
    assert Broker().most == 64  # the rest of the files is for the database and the like


def test_filters_are_counted(running, monkeypatch):
    monkeypatch.setattr(brokers, "FILTERS", 2)
    with welcome(running.port, "ear", subscribe("a", "b", "c")) as ear:
        assert ear.hear() == (0x90, b"\0\x07\0\0\x80")


# --- anything at all ---

BITS = st.one_of(
    st.binary(max_size=40), st.just(PING), st.just(b"\xe0\x00"),
    st.sampled_from([connect("a"), connect("b", 0x0E, more=string("w") + string("gone")),
                     subscribe("#"), subscribe("a/+", qos=1), publish("a/b", b"x", 1),
                     publish("a/c", b"y"), b"\x40\x02\0\x01",
                     packets.packet(0xA2, b"\0\x01" + string("#"))]))


class Silent(asyncio.Transport):
    """A transport without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.closed, self.sent = False, b""

    def get_extra_info(self, name, default=None):
        return SimpleNamespace(setsockopt=lambda *_: None) if name == "socket" else "somebody"

    def set_write_buffer_limits(self, high=None, low=None): pass
    def pause_reading(self): pass
    def resume_reading(self): pass
    def write(self, data): self.sent += data
    def close(self): self.closed = True
    abort = close


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(BITS, st.integers(0, 60), st.integers(0, 255), st.booleans()),
                max_size=8), st.data())
def test_whatever_comes(bits, data):
    """Packets, whole, bent or cut, in any pieces, from two at once; a third hears a good word."""
    async def live() -> None:
        broker, lines = Broker(), []
        for _ in range(3):
            line, transport = Connection(broker), Silent()
            line.connection_made(transport)
            lines.append((line, transport))
        good, its = lines.pop()
        good.data_received(connect("good") + subscribe("good/#"))
        for said, at, value, first in bits:
            line, transport = lines[first]
            if value % 3 == 0 and at < len(said):
                said = said[:at] + bytes((value,)) + said[at + 1:]
            cut = min(at, len(said))
            for part in (said[:cut], said[cut:]):
                if part and not transport.closed:
                    line.data_received(part)
            await asyncio.sleep(0)
            if transport.closed:
                line.connection_lost(None)
                lines[first] = Connection(broker), Silent()
                lines[first][0].connection_made(lines[first][1])
        await asyncio.sleep(0)
        good.data_received(publish("good/word", b"heard") + PING)
        await asyncio.sleep(0)
        assert its.sent.endswith(publish("good/word", b"heard") + b"\xd0\x00") and not its.closed
        for line, _ in [*lines, (good, its)]:
            line.connection_lost(None)
        assert not broker.connections and not broker.named
        assert not broker._exact and not broker._wild

    asyncio.run(live())


@given(st.binary(max_size=200))
def test_any_packet_is_read_or_refused(body):
    for read in (packets.hello, packets.subscriptions, packets.unsubscriptions,
                 packets.identifier, lambda data: packets.message(0x32, data),
                 lambda data: packets.message(0x30, data)):
        with contextlib.suppress(PacketError):
            read(body)


# --- somebody else's client, and what the gateway makes of it ---


def test_paho_talks_to_paho(running):
    """Subscribed again after being thrown out, too."""
    heard, ready = [], threading.Semaphore(0)

    def client(name: str) -> paho.Client:
        one = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        one.reconnect_delay_set(0.05, 0.2)
        return one

    ear, mouth = client("ear"), client("mouth")
    ear.on_connect = lambda *_: ear.subscribe("news/#", 1)
    ear.on_subscribe = lambda *_: ready.release()
    ear.on_message = lambda _, __, message: heard.append((message.qos, message.payload))
    for one in (ear, mouth):
        one.connect("127.0.0.1", running.port)
        one.loop_start()
    try:
        assert ready.acquire(timeout=WAIT_S)
        for i in range(500):
            mouth.publish(f"news/{i}", b"%d" % i, qos=i % 2)
        until(lambda: len(heard) == 500)
        assert sorted(heard) == sorted((i % 2, b"%d" % i) for i in range(500))
        running.call(running.broker.named["ear"].end, "a test")
        assert ready.acquire(timeout=WAIT_S)
        done = mouth.publish("news/last", b"last", qos=1)
        done.wait_for_publish(WAIT_S)
        until(lambda: heard[-1] == (1, b"last"))
    finally:
        for one in (ear, mouth):
            one.disconnect()
            one.loop_stop()


def test_a_port_that_is_taken_and_workers_without_a_broker(running, tmp_path):
    said = ["gateway", "--database", str(tmp_path / "gateway.db"), "--listen"]
    taken = CliRunner().invoke(app, [*said, f"127.0.0.1:{running.port}"])
    assert taken.exit_code and "is a broker running there" in str(taken.exception)
    shared = CliRunner().invoke(app, [*said, "127.0.0.1:1", "--share", "desk"])
    assert shared.exit_code == 2 and "--broker" in shared.output
