"""A model by radio on the emulated RP2040: the real firmware, its UART, armv6m code, a gateway."""

import json
import sys
from pathlib import Path

import pytest

from outpost import boards, build, firmware, package, power, provision
from outpost.emulator import SECOND_US, Emulator
from outpost.gateway import rollouts, schema, store, streams
from outpost.gateway.desk import Desk
from outpost.gateway.keys import enrol
from outpost.world import run as world

sys.path.insert(0, str(Path(__file__).parents[1] / "host"))

import packages  # noqa: E402

ARMV6M = 4  # as in the header of a .mpy
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def motion():
    return build.build("motion", ["x64", "armv6m"])


def test_a_package_comes_over_the_uart_and_is_kept(motion, tmp_path):
    """Cut once while it comes, in the middle of a flash operation."""
    image = firmware.build([motion.folder])
    meta = json.loads((motion.folder / "model.json").read_text())
    settings = world.settings(meta) | {"gate": None, "listen": 0, "wake_s": 30, "uplink_s": 30}
    settings["model"]["crc32"] = 0  # compiled into the firmware
    node = provision.Node(1, KEY, "rp2040")
    figures = power.figures(boards.load("rp2040"), power.battery())
    files = firmware.files_image({
        "settings.json": json.dumps(settings).encode(),
        "board.json": json.dumps(figures).encode(),
        "verify.mpy": package.verifier("armv6m"),
        "models/nothing": b"",
        "identity.json": json.dumps(
            node.identity() | {"trust": packages.SIGNER.public.hex()}).encode()})
    engine = store.connect(tmp_path / "gateway.db")
    with engine.begin() as db:
        enrol(db, 1, KEY)
        rollout = rollouts.begin(db, "motion", 2, {ARMV6M: packages.make(
            motion, arch="armv6m", settings={"gate": None})}, [1])
    desk, line, states, cut = Desk(engine, clock=None), bytearray(), [], False
    struck = 0
    with Emulator(usb=False) as board:
        board.load(uf2=image.uf2, parts={firmware.FILES_OFFSET: files})
        stop = board.power()
        while stop.now_us < 3600 * SECOND_US and states[-1:] != ["kept"]:
            stop = board.run(60 * SECOND_US, frame=True)
            line += stop.uart
            if stop.reason == "frame":
                frame, _, line = line.partition(b"\0")
                board.send(streams.answer(desk, bytes(frame) + b"\0"), "uart")
                with engine.connect() as db:
                    told = rollouts.summary(db, rollout)["nodes"][0]
                if states[-1:] != [told["state"]]:
                    states.append(told["state"])
                if told["state"] == "fetching" and told["have"] and not cut:
                    board.cut(2)
                    cut = True
            elif stop.reason != "time":
                line.clear()
                if stop.reason == "power":
                    struck += 1
                    stop = board.power(after_us=SECOND_US)
    with engine.connect() as db:
        told = json.loads(db.execute(schema.status.select()).one().items)
    engine.dispose()
    assert struck == 1 and states == ["waiting", "fetching", "trial", "kept"]
    assert told["model"]["version"] == 2 and told["faults"] == 0
