"""The interactive emulator: a board that runs with the wall clock, for a terminal or mpremote."""

import os
import pty
import selectors
import signal
import socket
import time
import tty
from contextlib import suppress
from pathlib import Path

from outpost.console import console
from outpost.emulator import Emulator, EmulatorError
from outpost.paths import BUILD


def serve(firmware: Path | None, flash: Path | None, port: int, speed: float) -> None:
    """Run a board until Ctrl-C; keep its flash in `flash` (default build/emulator/rp2040.img).

    A flash image that is there already is taken as it is, unless `firmware` is given too: then
    that is written over it, and the files and records stay.
    """
    flash = flash or BUILD / "emulator" / "rp2040.img"
    uf2 = firmware
    if uf2 is None and not flash.exists():
        from outpost import build
        from outpost import firmware as ours

        uf2 = ours.build([build.build("motion", ["x64", "armv6m"]).folder]).uf2
    for path in (uf2, flash if flash.exists() else None):
        if path is not None and not path.is_file():
            raise EmulatorError(f"{path} is not a file")
    flash.parent.mkdir(parents=True, exist_ok=True)
    for end in (signal.SIGTERM, signal.SIGHUP):  # a window that is closed keeps the flash too
        signal.signal(end, signal.default_int_handler)
    with Emulator() as board:
        board.load(uf2=uf2, image=flash if flash.exists() else None)
        board.power()
        ports = board.ask("serve", usb_port=port, uart_port=0, speed=speed)
        outer, inner = pty.openpty()
        tty.setraw(inner)
        try:
            console.print(f"[bold]RP2040 running[/], flash in {flash}\n"
                          f"  mpremote connect socket://127.0.0.1:{ports['usb_port']} repl\n"
                          f"  or any terminal on {os.ttyname(inner)}\n"
                          f"  UART0 (the uplink) on TCP port {ports['uart_port']}\n"
                          "Ctrl-C ends it and keeps the flash.", highlight=False)
            _relay(board, outer, ports["usb_port"])
        except KeyboardInterrupt:
            console.print("")
        finally:
            board.save(flash)
            os.close(outer)
            os.close(inner)


def _relay(board: Emulator, outer: int, port: int) -> None:
    """Carry bytes between the pty and USB serial for as long as the emulator lives."""
    with socket.create_connection(("127.0.0.1", port)) as usb, \
            selectors.DefaultSelector() as ready:
        ready.register(usb, selectors.EVENT_READ)
        ready.register(outer, selectors.EVENT_READ)
        os.set_blocking(outer, False)
        saved = time.monotonic()
        while board.process.poll() is None:
            for key, _ in ready.select(1.0):
                if key.fileobj is usb:
                    data = usb.recv(4096)
                    if not data:
                        return
                    # nobody reads a full pty; a real port would drop it as well
                    with suppress(BlockingIOError):
                        os.write(outer, data)
                else:
                    usb.sendall(os.read(outer, 4096))
            if time.monotonic() - saved > 60:
                board.ask("status")
                saved = time.monotonic()
    raise EmulatorError(f"the emulator ended by itself (exit code {board.process.poll()})")
