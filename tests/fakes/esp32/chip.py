# An ESP32 running stock MicroPython, on the unix port: `micropython chip.py FOLDER [repl]`.
# FOLDER holds flash.bin, rtc.bin and wake.json; what happened at its end goes to slept.json. One
# process is one wake: _boot.py's mount, main.py, then the REPL if main.py lets go.

# ruff: noqa: E402, I001
import io
import sys

FOLDER = sys.argv[1]

import os

os.chdir(FOLDER)

import chip_time

sys.modules["time"] = chip_time

import esp32
import vfs

sys.path.insert(0, "/flash")


def setup():
    device = esp32.Partition.find(esp32.Partition.TYPE_DATA, label="vfs")[0]
    vfs.mount(vfs.VfsLfs2(device), "/flash")
    os.chdir("/flash")
    __import__("machine")  # the fake one, before somebody takes the unix port's
    with open("boot.py") as file:
        exec(file.read())
    from node import board

    board.here = here  # sys.platform, by which a board is chosen, says linux here


def here():
    from node.board.esp32 import Board

    return Board()


names = {"__name__": "__main__"}


def run(code, name):
    try:
        exec(compile(code, name, "exec"), names)
    except SystemExit:
        raise
    except BaseException as error:
        if type(error).__name__ == "Slept":
            sys.exit(0)
        text = io.StringIO()
        sys.print_exception(error, text)
        return text.getvalue()
    return ""


def key():
    byte = sys.stdin.buffer.read(1)
    if not byte:
        sys.exit(0)
    return byte


def say(data):
    sys.stdout.buffer.write(data)


def raw():
    say(b"raw REPL; CTRL-B to exit\r\n>")
    code = b""
    while True:
        byte = key()
        if byte == b"\x01":
            code = b""
            say(b"raw REPL; CTRL-B to exit\r\n>")
        elif byte == b"\x02":
            return
        elif byte == b"\x03":
            code = b""
        elif byte == b"\x05" and not code:
            key(), key()
            say(b"R\x00")
        elif byte != b"\x04":
            code += byte
        elif code:
            say(b"OK")
            problem = run(code.decode(), "<stdin>")
            say(b"\x04" + problem.encode() + b"\x04>")
            code = b""
        else:
            say(b"OK\r\nMPY: soft reboot\r\nraw REPL; CTRL-B to exit\r\n>")


problem = ""
try:
    setup()
    with open("main.py") as file:
        main = file.read()
    problem = run(main, "main.py")
except (OSError, ImportError) as error:
    problem = "no main.py: %s\r\n" % error
say(problem.encode())
if "repl" not in sys.argv[2:]:
    sys.exit(1 if problem else 0)
while True:
    say(b"\r\n>>> ")
    if key() == b"\x01":
        raw()
