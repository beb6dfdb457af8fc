"""The gateway at work: frames from all ports to the desk, answers back to where they came from.

Frames wait in one queue and are taken from it as many at a time as have come while the last
transaction was under way, and a moment more: a busy gateway commits seldom, and an idle one
answers soon.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from outpost.gateway.desk import Answer, Desk

BATCH = 1000  # frames in one transaction
GATHER_S = 0.003  # a node's frames come one after the other; waiting halves the commits
QUEUE = 4000  # frames waiting for it; then their ports have to wait

Reply = Callable[[Sequence[Answer]], Awaitable[None]]

log = logging.getLogger(__name__)


class Service:
    """Feeds a desk; ports call `put`, and `run` works until it is cancelled."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._queue: asyncio.Queue[tuple[bytes, Reply]] = asyncio.Queue(QUEUE)

    @property
    def waiting(self) -> int:
        """Frames that nobody has taken yet."""
        return self._queue.qsize()

    async def put(self, frame: bytes, reply: Reply) -> None:
        """Hand in a frame; `reply` is called with the answers there are."""
        await self._queue.put((frame, reply))

    async def run(self) -> None:
        """Take frames and answer them. A failing database is tried again; nodes ask again."""
        async with asyncio.TaskGroup() as hands:
            for _ in range(self.desk.hands):
                hands.create_task(self._work())

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(GATHER_S)
            while not self._queue.empty() and len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
            try:
                answers = await asyncio.to_thread(self.desk.take, [frame for frame, _ in batch])
            except Exception as error:  # nobody is acknowledged, so everything comes again
                log.error("%d frames were not stored: %s", len(batch), told(error))
                await asyncio.sleep(1)
                answers = []
            replies = {int.from_bytes(frame[1:5], "little"): reply for frame, reply in batch}
            ways: dict[Reply, list[Answer]] = {}
            for answer in answers:
                ways.setdefault(replies[answer[0]], []).append(answer)
            for reply, some in ways.items():
                await reply(some)
            for _ in batch:
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until all that was handed in is answered."""
        await self._queue.join()


def told(error: BaseException) -> str:
    """Return an error's first line without the SQL and its parameters, which hold nodes' data."""
    return f"{type(error).__name__}: {getattr(error, 'orig', error)}".partition("\n")[0]
