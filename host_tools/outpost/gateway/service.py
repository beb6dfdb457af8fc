"""The gateway at work: frames from all ports to the desk, answers back to where they came from.

Frames wait in one queue and are taken from it as many at a time as have come while the last
transaction was under way, and a moment more: a busy gateway commits seldom, and an idle one
answers soon.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from outpost.gateway.desk import Answer, Desk

BATCH = 1000  # frames in one transaction, about
HANDS = 2  # one reads frames while the database stores those of the other
GATHER_S = 0.003  # a node's frames come one after the other; waiting halves the commits
QUEUE = 4000  # frames waiting for it; then their ports have to wait

Reply = Callable[[Sequence[Answer]], Awaitable[None]]

log = logging.getLogger(__name__)


class Service:
    """Feeds a desk; ports call `put`, and `run` works until it is cancelled."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.waiting = 0  # frames that nobody has taken yet
        self._busy = 0  # hands with frames in them
        self._turn = asyncio.Lock()  # of the hand that gathers
        self._queue: asyncio.Queue[tuple[Sequence[bytes], Reply]] = asyncio.Queue()
        self._room = asyncio.Condition()

    async def put(self, frames: Sequence[bytes], reply: Reply) -> None:
        """Hand in frames; `reply` is called with the answers there are."""
        if self.waiting >= QUEUE:
            async with self._room:
                await self._room.wait_for(lambda: self.waiting < QUEUE)
        self.waiting += len(frames)
        self._queue.put_nowait((frames, reply))

    async def run(self) -> None:
        """Take frames and answer them. A failing database is tried again; nodes ask again."""
        async with asyncio.TaskGroup() as hands:
            for _ in range(HANDS):
                hands.create_task(self._work())

    async def _work(self) -> None:
        while True:
            async with self._turn:  # or a hand that waits with frames would be overtaken
                batch = [await self._queue.get()]
                await asyncio.sleep(GATHER_S)
                while self._busy and self.waiting < BATCH:
                    await asyncio.sleep(GATHER_S)  # a second hand is for who has all hands full
                count = len(batch[0][0])
                while not self._queue.empty() and count < BATCH:
                    batch.append(self._queue.get_nowait())
                    count += len(batch[-1][0])
                self.waiting -= count
                self._busy += 1
            async with self._room:
                self._room.notify_all()
            frames = [frame for some, _ in batch for frame in some]
            try:
                answers = await asyncio.to_thread(self.desk.take, frames)
            except Exception as error:  # nobody is acknowledged, so everything comes again
                log.error("%d frames were not stored: %s", count, told(error))
                await asyncio.sleep(1)
                answers = []
            finally:
                self._busy -= 1
            replies = {int.from_bytes(frame[1:5], "little"): reply
                       for some, reply in batch for frame in some}
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
