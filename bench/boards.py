"""What the node costs on an RP2040: boot, a wake's stages, models and their rivals, the ring.

Kind of every figure: measured on emulator (rp2040js at the clock our firmware sets, 200 MHz).
Times are instruction times plus typical NOR times for flash operations; the XIP cache and flash
latency are not modelled, so a real chip is slower where it runs code for the first time.
`--write` puts what a wake costs into boards/rp2040.toml.
"""

import argparse
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rivals
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import outpost.device  # noqa: F401  # firmware/ on the path
from node import record
from node.outbox import EVENT
from node.ring import Ring
from outpost import (
    boards,
    build,
    compile,
    convert,
    data,
    features,
    firmware,
    image,
    link,
    program,
    recipe,
    train,
)
from outpost.emulator import SECOND_US, Emulator
from outpost.paths import BUILD, NATIVE
from outpost.reference import integer_threshold
from outpost.world import run as world
from outpost.world.audit import Image

ARCH = "armv6m"
ROWS = 30
WINDOWS = 8
PROGRAM_US = 400  # of the flash, per page: host_tools/outpost/emulator/chip.mjs
SOURCE = "bench/boards.py on rp2040js 1.4.1, MicroPython 1.25.0"
Fitted = SimpleNamespace  # recipe, windows, features x, forest


def fit(name: str) -> Fitted:
    """Return a model's recipe, its held-out windows and their features, and its forest."""
    what = recipe.load(recipe.find(name))
    dataset = data.load(what)
    train_set, test_set = (data.windows(part, dataset.classes, what.signal.window, what.signal.hop)
                           for part in (dataset.train, dataset.test))
    forest = train.fit(what.forest, features.compute(what, train_set.x), train_set.y)
    return SimpleNamespace(recipe=what, windows=test_set.x, forest=forest,
                           x=features.compute(what, test_set.x))


# --- the forest by hand, in Python ---


def branches(tree: Any, node: int = 0, depth: int = 1) -> str:
    """Return a tree as nested Python ifs that return the class of a leaf."""
    pad = "    " * depth
    if tree.children_left[node] == -1:
        return f"{pad}return {tree.value[node, 0].argmax()}\n"
    threshold = int(integer_threshold(tree.threshold[node]))
    return (f"{pad}if x[{tree.feature[node]}] < {threshold}:\n"
            + branches(tree, tree.children_left[node], depth + 1) + f"{pad}else:\n"
            + branches(tree, tree.children_right[node], depth + 1))


def by_hand(forest: Any, decorator: str = "") -> str:
    """Return our own forest as somebody would write it in Python: each tree has a vote."""
    trees = [f"{decorator}def tree{i}(x):\n{branches(one.tree_)}"
             for i, one in enumerate(forest.estimators_)]
    calls = "".join(f"    votes[tree{i}(x)] += 1\n" for i in range(len(trees)))
    return ("import micropython\n" + "".join(trees) + f"{decorator}def predict(x, votes):\n"
            f"    for i in range({len(forest.classes_)}):\n        votes[i] = 0\n{calls}"
            f"    best = 0\n    for i in range(1, {len(forest.classes_)}):\n"
            "        if votes[i] > votes[best]:\n            best = i\n    return best\n")


# The features of motion: mean absolute deviation and crossings of six channels.
FEATURES = """
DECORATORdef features(window, out):
    at = 0
    for channel in range(6):
        total = 0
        for i in range(channel, 384, 6):
            total += window[i]
        mean = total // 64
        distance = crossings = 0
        was = window[channel] > mean
        for i in range(channel, 384, 6):
            off = window[i] - mean
            if off < 0:
                distance -= off
            else:
                distance += off
            above = off > 0
            if above != was:
                crossings += 1
            was = above
        value = distance // 64
        out[at] = value if value < 32767 else 32767
        out[at + 1] = crossings
        at += 2
def classify(window, x, votes):
    features(window, x)
    return predict(x, votes)
"""


def mpy(source: str, name: str, folder: Path) -> bytes:
    """Return Python as .mpy for the RP2040."""
    return rivals.bytecode(source, name, ARCH, folder)


# --- models ---

# Imports NAME, then times each row: the call from Python, less what an empty one costs.
TIMED = """
import gc, time
from array import array
def timed(call, times):
    start = time.ticks_us()
    for _ in range(times):
        call()
    return time.ticks_diff(time.ticks_us(), start)
def nothing():
    pass
gc.collect()
before = gc.mem_free()
start = time.ticks_us()
import NAME as module
took = time.ticks_diff(time.ticks_us(), start)
gc.collect()
heap = before - gc.mem_free()
arrays = ARRAYS
function = module.FUNCTION
call = lambda: function(*arrays)
total = worst = 0
answers = []
with open('rows', 'rb') as file:
    for _ in range(COUNT):
        file.readinto(arrays[0])
        call()
        us = (timed(call, 5) - timed(nothing, 5)) / 5
        total += us
        worst = max(worst, us)
        answers.append(call())
print(total / COUNT, worst, took, heap)
print(answers)
"""


def at_prompt(uf2: Path, files: dict[str, bytes]) -> Emulator:
    """Return a board with `files` at its REPL."""
    board = Emulator()
    board.load(uf2=uf2, parts={firmware.FILES_OFFSET: firmware.files_image(files)})
    board.power()
    board.boot()
    return board


def time_model(uf2: Path, name: str, code: bytes | None, function: str, arrays: str,
               rows: np.ndarray) -> tuple[list[float], str]:
    """Return ([mean us, worst us, us of the import, bytes of heap], answers) of one module."""
    files = {"rows": rows.astype("<i2").tobytes()} | ({f"{name}.mpy": code} if code else {})
    text = TIMED
    for word, value in (("NAME", name), ("FUNCTION", function), ("ARRAYS", arrays),
                        ("COUNT", str(len(rows)))):
        text = text.replace(word, value)
    with at_prompt(uf2, files) as board:
        figures, answers = board.execute(text, 600 * SECOND_US).splitlines()
    return list(map(float, figures.split())), answers


def row(table: Table, label: str, figures: list[float], code: bytes | None) -> None:
    """Add a module's line."""
    mean, worst, took, heap = figures
    table.add_row(label, f"{mean:,.1f} µs", f"worst {worst:,.1f} µs, import {took / 1000:.1f} ms, "
                  f"heap {heap:,.0f} B, " + (f"file {len(code):,} B" if code else "in flash"))


def forests(table: Table, scratch: Path, digits: Fitted, uf2: Path) -> None:
    """Digits: our forest as C in both forms, emlearn's loadable C, three kinds of Python."""
    obj = compile.compile_module([NATIVE / "module.c"], [scratch / "digits", NATIVE], ARCH,
                                 scratch / "digits.o")
    forest = digits.forest
    arrays = f"(array('h', bytes({2 * digits.x.shape[1]})), bytearray({len(forest.classes_)}))"
    for label, name, code in (
            ("ours, compiled in", "digits", None),
            ("ours, .mpy", "loaded", link.link(obj, ARCH, "loaded")),
            ("emlearn loadable C, same glue", "emlearn", None),
            ("by hand in Python", "plain", mpy(by_hand(forest), "plain", scratch)),
            ("m2cgen's Python", "m2", mpy(rivals.m2cgen(forest), "m2", scratch)),
            ("everywhereml's Python", "every",
             mpy(rivals.everywhereml(forest), "every", scratch))):
        figures, _ = time_model(uf2, name, code, "predict", arrays, digits.x[:ROWS])
        row(table, f"digits, features to class: {label}", figures, code)
    table.add_section()


def windows(table: Table, scratch: Path, motion: build.Result, uf2: Path) -> float:
    """Motion: features and forest of one window, in C and in MicroPython; return us of import."""
    fitted = fit("motion")
    native = (motion.folder / motion.modules[1].file).read_bytes()
    arrays = "(array('h', bytes(768)), array('h', bytes(24)), bytearray(4))"
    python = {kind: mpy(by_hand(fitted.forest, mark) + FEATURES.replace("DECORATOR", mark), kind,
                        scratch)
              for kind, mark in (("plain", ""), ("native", "@micropython.native\n"))}
    found, answers = {}, set()
    for label, name, code in (("compiled in", "motion", None), (".mpy", "loaded", native),
                              ("MicroPython", "plain", python["plain"]),
                              ("MicroPython, @native", "native", python["native"])):
        found[label], got = time_model(uf2, name, code, "classify", arrays,
                                       fitted.windows[:WINDOWS])
        answers.add(got)
        row(table, f"motion, window to class: {label}", found[label], code)
    if len(answers) != 1:
        raise SystemExit(f"they don't agree: {answers}")
    ours = found["compiled in"][0]
    table.add_row("", f"{found['MicroPython'][0] / ours:,.0f}×, "
                  f"{found['MicroPython, @native'][0] / ours:,.0f}×",
                  "as long takes MicroPython, plain and @native")
    table.add_section()
    return found[".mpy"][2]


# --- boot ---

# Notes the time of the first line of ours, and the next what importing the node takes.
SCRATCH = 0x4005800C  # of the watchdog; the node has the first four, the bootrom the last
WINDOW_US = 64 * 80_000  # of motion, from the sensor's start to its last sample
BOOT = f"import time, machine\nmachine.mem32[{SCRATCH + 20}] = time.ticks_us()\n"
IMPORT = f"""
from node import board, cycle
__import__("node.board.rp2")
machine.mem32[{SCRATCH + 24}] = time.ticks_us() - machine.mem32[{SCRATCH + 20}]
"""


def first_decision(table: Table, label: str, uf2: Path, files: dict[str, bytes],
                   rom: bytes = b"") -> tuple[int, int]:
    """From power-on over a used ring; return us to the first line of ours, and of its imports."""
    boot = BOOT.encode() + files.get("boot.py", b"")
    with Emulator(usb=False) as board:
        board.load(uf2=uf2, parts={
            firmware.FIRMWARE_BYTES: rom,
            firmware.FILES_OFFSET: firmware.files_image(files | {"boot.py": boot})})
        board.power()
        board.run(60 * SECOND_US)  # opens the rings' first sectors
        board.power(on=False)
        changes = class_changes(board)
        begin = board.power(after_us=SECOND_US)
        board.ask("log", on=True)
        while class_changes(board) == changes:
            while not (programs := board.ask("operations")["log"]):
                stop = board.run(250)
                if stop.now_us - begin.now_us > 60 * SECOND_US:
                    raise SystemExit(f"{label}: no decision within a minute")
        handed = board.scratch()[5]
        took = programs[-1]["us"] + PROGRAM_US - begin.now_us - handed
        asleep = stop.sleep_us - begin.sleep_us
        # the same once more, with the imports timed
        board.power(on=False)
        board.load(parts={firmware.FILES_OFFSET: firmware.files_image(
            files | {"boot.py": boot + IMPORT.encode()})})
        board.power()
        board.run(2 * SECOND_US)
        imports = board.scratch()[6]
    table.add_row(f"boot, {label}: reset to hand-over", f"{handed / 1000:.1f} ms",
                  "to the first line of ours")
    table.add_row(f"boot, {label}: hand-over to decision in flash",
                  f"{(took - asleep) / 1000:.1f} ms",
                  f"awake, imports {imports / 1000:.1f} ms of it; the window's "
                  f"{asleep / SECOND_US:.2f} s are slept through")
    table.add_row("", f"{(took - WINDOW_US) / 1000:.1f} ms",
                  f"by the clock, less {WINDOW_US / SECOND_US:.2f} s that 64 samples take")
    return handed, imports


def class_changes(board: Emulator) -> int:
    """Count the decisions in flash that changed the class, as the first after power-on does."""
    lanes = boards.load("rp2040").lanes
    sector = 4096
    offset = boards.load("rp2040").flash.region("ring").offset + lanes["alert"] * sector
    ring = Ring(Image(board.peek(offset, lanes["event"] * sector)), 0, lanes["event"],
                EVENT, 256)
    ring.mount()
    return sum(kind == record.EVENT and payload[0] == record.CLASS_CHANGED
               for _, kind, _, payload in ring.records(1))


MOUNT = """
import rp2, time, vfs
start = time.ticks_us()
vfs.mount(vfs.VfsLfs2(rp2.Flash(start=0, len=0x40000), progsize=256), "/again")
print(time.ticks_diff(time.ticks_us(), start))
"""

# --- a wake ---

# Wakes that don't wait: what is asleep on the board takes no time here and is not counted.
WAKES = """
import gc, time
from node import cycle
from node.board import TIMER
from node.board.rp2 import Board
here = Board()
spent = [0] * 7
last = begin = dozed = 0
doze = here.doze_ms
def doze_ms(ms):
    global dozed
    start = time.ticks_us()
    doze(ms)
    dozed += time.ticks_diff(time.ticks_us(), start)
def lap(stage):
    global last, dozed
    now = time.ticks_us()
    spent[stage] = time.ticks_diff(now, last) - dozed
    last, dozed = now, 0
    return time.ticks_diff(now, begin)
def sleep(ms, event=True):
    global end
    end = time.ticks_us()
    here.cause = TIMER
def wake():
    global last, begin, dozed
    here._begin_us = last = begin = time.ticks_us()
    dozed = 0
    cycle._live_once(here)
    return time.ticks_diff(end, last)
here.doze_ms, here.lap, here.sleep = doze_ms, lap, sleep
end = 0
for _ in range(4):
    wake()
gc.collect()
steady = gc.mem_free()
gc.disable()
before = gc.mem_alloc()
rest = wake()
allocated = gc.mem_alloc() - before
gc.enable()
figures = spent[:6], rest
free = []
for _ in range(8):
    wake()
    gc.collect()
    free.append(gc.mem_free())
print(figures[0], rest, allocated, steady, min(free), max(free))
"""


def wakes(table: Table, uf2: Path, settings: bytes) -> dict[str, int]:
    """One timer wake, stage by stage, and the heap it needs; return us by stage."""
    with at_prompt(uf2, {"settings.json": settings}) as board:
        line = board.execute(WAKES, 600 * SECOND_US)
    stages, _, others = line.partition("] ")
    times = json.loads(stages + "]")
    rest, allocated, steady, least, most = map(int, others.split())
    names = ("boot", "capture", "pre", "infer", "post", "store")
    told = ("state, settings, rings", "64 samples out of the FIFO", "features", "forest",
            "vote over the last decisions", "gather, prepare")
    for name, what, us in zip(names, told, times, strict=True):
        table.add_row(f"wake by the timer: {name}", f"{us / 1000:.2f} ms", what)
    table.add_row("wake by the timer: whole", f"{(sum(times) + rest) / 1000:.1f} ms",
                  f"awake, without an uplink; saving state {rest / 1000:.1f} ms of it")
    table.add_row("heap a wake allocates", f"{allocated:,} B",
                  f"all given back: free after a collection {steady:,} B, in eight wakes more "
                  f"{least:,}…{most:,} B")
    table.add_section()
    return dict(zip(names, times, strict=True))


APPENDS = """
import rp2, time
from node.ring import Ring
def timed(call, times):
    start = time.ticks_us()
    for _ in range(times):
        call()
    return time.ticks_diff(time.ticks_us(), start) / times
ring = Ring(rp2.Flash(start=0x40000, len=0x120000), 0, 16, 0, 256, lambda: 7)
ring.mount()
payload = bytes(32)
ring.append(1, 0, payload)
print(timed(lambda: ring.append(1, 0, payload), 60), timed(ring.prepare, 1), timed(ring.mount, 1))
"""


def flash(table: Table, uf2: Path) -> tuple[float, int, int]:
    """Ring and files; return us of an append of 32 bytes and of mounting, and bytes of heap."""
    with at_prompt(uf2, {}) as board:
        heap = int(board.execute("import gc\nprint(gc.mem_alloc() + gc.mem_free())"))
        append, prepare, mount = map(float, board.execute(APPENDS, 60 * SECOND_US).split())
        files = int(board.execute(MOUNT))
    table.add_row("heap", f"{heap:,} B", "of MicroPython, as it starts")
    table.add_row("ring, append of 32 bytes", f"{append / 1000:.2f} ms",
                  f"{PROGRAM_US / 1000} ms of it the flash's")
    table.add_row("ring, prepare", f"{prepare / 1000:.1f} ms", "45 ms of it the flash's erase")
    table.add_row("ring, cold mount of 16 sectors", f"{mount / 1000:.1f} ms", "")
    table.add_row("files, mount", f"{files / 1000:.1f} ms", "littlefs of 64 blocks")
    return append, files, heap


def look(table: Table, uf2: Path, settings: bytes) -> None:
    """Light sleep with a look at the event pin each second."""
    with Emulator(usb=False) as board:
        board.load(uf2=uf2, parts={
            firmware.FILES_OFFSET: firmware.files_image({"settings.json": settings})})
        board.power()
        before = board.run(60 * SECOND_US)
        after = board.run(60 * SECOND_US)
    awake = (after.now_us - before.now_us) - (after.sleep_us - before.sleep_us)
    table.add_row("light sleep, a look at the event pin", f"{awake / 60:,.0f} µs", "once a second")


# --- all of it ---


def measure(table: Table, scratch: Path) -> dict[str, tuple[float, str]]:
    """Fill the table; return what goes into the board file: {key: (value, unit)}."""
    motion = build.build("motion", ["x64", ARCH])
    digits = fit("digits")
    for name in ("digits", "emlearn"):
        convert.emit(digits.recipe, digits.forest, scratch / name)
    (scratch / "emlearn/model.c").write_text(rivals.emlearn_c(digits.forest, "loadable"))
    ours = firmware.build([motion.folder]).uf2
    bare = firmware.build([scratch / "digits", scratch / "emlearn"],
                          frozen=False, out=BUILD / "firmware/bench").uf2
    native = motion.modules[1]
    settings = world.settings(json.loads((motion.folder / "model.json").read_text()))
    settings |= {"listen": 1, "wake_s": 3600, "gate": None}  # each window to its end

    def with_model(crc32: int) -> bytes:
        return json.dumps(settings | {"model": settings["model"] | {"crc32": crc32}}).encode()

    built_in = with_model(0)
    rp2040 = boards.load("rp2040")
    files = image.application(rp2040) | {
        "settings.json": with_model(native.crc32),
        "models/motion.mpy": (motion.folder / native.file).read_bytes()}
    handed, imports = first_decision(table, "frozen", ours, {"settings.json": built_in})
    first_decision(table, "as .mpy files in a ROMFS", ours, {"settings.json": built_in},
                   program.romfs(rp2040))
    first_decision(table, "as .mpy files in littlefs", bare, files)
    table.add_section()
    stages = wakes(table, ours, built_in)
    loading = windows(table, scratch, motion, ours)
    forests(table, scratch, digits, bare)
    append, mount, heap = flash(table, ours)
    look(table, ours, built_in)
    return {"memory.heap": (heap, "B"),
            "costs.boot.reset": (handed - mount, "us/reset"),
            "costs.boot.mount": (mount, "us/reset"),
            "costs.boot.import": (imports, "us/reset"),
            "costs.boot.model": (loading, "us/reset"),
            "costs.boot.resume": (stages["boot"], "us"),
            "costs.capture.sample": (stages["capture"] / 64, "us/sample"),
            "costs.post.smooth": (stages["post"], "us"),
            "costs.store.append": (append - PROGRAM_US, "us/record")}


def main() -> None:
    """Measure everything, print one table, with `--write` feed the board file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the figures into boards/")
    asked = parser.parse_args()
    table = Table("what", "figure", "", box=SIMPLE_HEAD, title_justify="left",
                  title="RP2040, measured on emulator (rp2040js 1.4.1, 200 MHz, instruction time)")
    table.columns[1].justify = "right"
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(table, Path(scratch))
    Console(width=132).print(table)
    if asked.write:
        file = boards.load("rp2040").file
        for key, (value, unit) in figures.items():
            boards.set_figure(file, key, round(value), "measured on emulator", SOURCE, unit)


if __name__ == "__main__":
    main()
