"""`python -m outpost.gateway.ingest`: frames in over TCP, records into the store, acks out.

Frames are COBS-encoded and end in a zero byte (docs/frame-format.md). Nothing is kept in memory
between two frames, so the process may be killed at any moment.
"""

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

import outpost.device  # noqa: F401  # firmware/ on the path
from node import frame
from node.uplink import serial
from outpost.gateway.store import connect, store

MAX_LINE = 4096  # bytes without a zero among them: noise


async def serve(engine: Engine, host: str, port: int) -> asyncio.Server:
    """Listen; port 0 takes a free one."""
    return await asyncio.start_server(partial(_session, engine), host, port, limit=MAX_LINE)


async def _session(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
                   ) -> None:
    try:
        while True:
            try:
                line = bytearray(await reader.readuntil(b"\0"))
            except asyncio.LimitOverrunError as error:
                await reader.readexactly(error.consumed)
                continue
            ack = answer(engine, line[:-1])
            if ack:
                writer.write(ack)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the node's side of it is in its outbox
    finally:
        writer.close()


def answer(engine: Engine, line: bytearray) -> bytes:
    """Store what a COBS-encoded frame carries; return the encoded ack, nothing for noise."""
    try:
        size = serial.decode(line, len(line))
        head = store(engine, bytes(line[:size]))
    except ValueError as error:
        print(f"passed over {len(line)} bytes: {error}", file=sys.stderr)
        return b""
    ack = bytearray(32)
    size = frame.encode_ack(ack, *head)
    coded = bytearray(48)
    return bytes(coded[:serial.encode(ack, size, coded)])


async def _main() -> None:
    parser = argparse.ArgumentParser(description="Take frames of records in over TCP.")
    parser.add_argument("--database", required=True, help="an SQLite file, or an SQLAlchemy URL")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    database = options.database
    engine = connect(database if "://" in database else Path(database))
    server = await serve(engine, options.host, options.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
