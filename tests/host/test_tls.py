"""TLS between a node and its broker: the node's own tcp.py and mqtt.py on a MicroPython that has
mbedtls (Debian's), a real mosquitto, and certificates made here.
"""

import ssl
import subprocess
from pathlib import Path

import pytest
from gateways import enrolled, gateway
from test_session import KEY, NODE

from outpost.gateway import mqtt, schema, store
from outpost.paths import FIRMWARE
from outpost.toolchain import servers, unix

DEVICE = Path(__file__).parents[1] / "device" / "lib"

# A node with records to tell, over TLS; argv: port, certificate of the CA.
CODE = f"""
import sys, time
from node.board import Common
from node.settings import Settings
from node.state import State
from node.uplink.mqtt import Mqtt
from node.uplink.session import Session
from node.uplink.tcp import Tcp
from ram import outbox

class Board(Common):
    cause, node_id, key = 1, {NODE}, {KEY!r}
    def now_s(self): return 1767600000
    def ticks_us(self): return time.ticks_us() & 0xffffff
    def random32(self): return 0x12345678
    def battery_mv(self): return 3900
    def temperature_c(self): return 20
    def feed(self): pass

box, board, state = outbox(), Board(), State()
board.limit_us = 0
board.left_ms = lambda: 20000
for n in range(50):
    box.put(n % 4, 1, 1767600000 + n, bytes(20))
with open(sys.argv[2], "rb") as file:
    ca = file.read()
try:
    stream = Tcp("localhost", int(sys.argv[1]), 5000, ca)
    link = Mqtt(stream, {NODE})
    Session(board, Settings("none"), state, box, link).hold()
    link.close()
    print("waiting", box.depth(), "carried", link.carried)
except OSError as error:
    print("refused", error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two certificate authorities, and certificates of two hosts by the first."""
    made = tmp_path_factory.mktemp("tls")
    for name in ("ours", "other"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "3650", "-subj", f"/CN={name}", "-keyout", made / f"{name}.key",
                "-out", made / f"{name}.pem")
        der = ssl.PEM_cert_to_DER_cert((made / f"{name}.pem").read_text())
        (made / f"{name}.der").write_bytes(der)
    for name in ("localhost", "elsewhere"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                f"/CN={name}", "-keyout", made / f"{name}.key", "-out", made / f"{name}.csr")
        (made / "names").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("x509", "-req", "-in", made / f"{name}.csr", "-CA", made / "ours.pem", "-CAkey",
                made / "ours.key", "-CAcreateserial", "-days", "3650", "-extfile", made / "names",
                "-out", made / f"{name}.pem")
    return made


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def talk(port, ca):
    """What a node says that trusts `ca` when it meets who listens at `port`."""
    done = subprocess.run(
        [*unix.with_tls(), "-c", CODE, str(port), str(ca)], capture_output=True, text=True,
        timeout=60, check=False, env={"MICROPYPATH": f"{FIRMWARE}:{DEVICE}:.frozen"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def test_records_come_home_over_tls_and_only_to_whom_our_ca_has_signed(folder, tmp_path):
    database = enrolled(tmp_path / "gateway.db", {NODE: KEY})
    with servers.Mosquitto(tls=(folder / "localhost.pem", folder / "localhost.key")) as broker:
        where = mqtt.where(f"mqtts://localhost:{broker.port}", str(folder / "ours.pem"))
        with gateway(database, broker=where):
            assert talk(broker.port, folder / "other.der")[0] == "refused"
            assert stored(database) == 0
            said = talk(broker.port, folder / "ours.der")
            assert said[:2] == ["waiting", "0"], said
    assert stored(database) == 50


def test_a_certificate_of_another_host_is_refused(folder):
    with servers.Mosquitto(tls=(folder / "elsewhere.pem", folder / "elsewhere.key")) as broker:
        assert talk(broker.port, folder / "ours.der")[0] == "refused"


def test_who_does_not_speak_tls_is_refused(folder):
    with servers.Mosquitto() as broker:
        assert talk(broker.port, folder / "ours.der")[0] == "refused"


def stored(database):
    engine = store.connect(database)
    with engine.connect() as db:
        count = len(db.execute(schema.records.select()).all())
    engine.dispose()
    return count
