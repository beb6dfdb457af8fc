"""`python -m outpost.gateway.ingest`: frames in over TCP, records into the store, acks out.

Frames are COBS-encoded and end in a zero byte (docs/frame-format.md). Nothing is kept in memory
between two frames, so the process may be killed at any moment.
"""

import argparse
import asyncio
from functools import partial
from pathlib import Path

from sqlalchemy import event

import outpost.device  # noqa: F401  # firmware/ on the path
from node.uplink import serial
from outpost.gateway.desk import Desk
from outpost.gateway.store import connect

MAX_LINE = 4096  # bytes without a zero among them: noise


async def serve(desk: Desk, host: str, port: int) -> asyncio.Server:
    """Listen; port 0 takes a free one."""
    return await asyncio.start_server(partial(_session, desk), host, port, limit=MAX_LINE)


async def _session(desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
                   ) -> None:
    try:
        while True:
            try:
                line = bytearray(await reader.readuntil(b"\0"))
            except asyncio.LimitOverrunError as error:
                await reader.readexactly(error.consumed)
                continue
            ack = answer(desk, line[:-1])
            if ack:
                writer.write(ack)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the node's side of it is in its outbox
    finally:
        writer.close()


def answer(desk: Desk, line: bytearray) -> bytes:
    """Store what a COBS-encoded frame carries; return the encoded answers, nothing for noise."""
    try:
        size = serial.decode(line, len(line))
    except ValueError:
        return b""
    out = bytearray()
    for _, frame in desk.take([bytes(line[:size])]):
        coded = bytearray(len(frame) + len(frame) // 254 + 2)
        out += coded[:serial.encode(frame, len(frame), coded)]
    return bytes(out)


async def _main() -> None:
    parser = argparse.ArgumentParser(description="Take frames of records in over TCP.")
    parser.add_argument("--database", required=True, help="an SQLite file, or an SQLAlchemy URL")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--volatile", action="store_true", help="don't wait for the disk: what is "
                        "acknowledged outlives this process, but not a power cut")
    options = parser.parse_args()
    database = options.database
    engine = connect(database if "://" in database else Path(database))
    if options.volatile:
        event.listen(engine, "connect", lambda db, _: db.execute("PRAGMA synchronous = OFF"))
        engine.dispose()  # the connections there are wait
    server = await serve(Desk(engine, clock=None), options.host, options.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
