"""A share of the torture of the ring, and that the torturer sees each protection that is off."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[1] / "torture"
CUTS, SEED = 30_000, 1


@pytest.fixture
def torturer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TORTURE))
    import cases
    import flash
    import life

    from node import ring, sector

    class Modules:
        Case, Tally, Broken = life.Case, life.Tally, flash.Broken
        Ring, Sectors = ring.Ring, sector.Sectors
        out, seen = sector.out, sector.seen

    Modules.cases, Modules.ring, Modules.sector = cases, ring, sector
    return Modules


def test_nothing_is_lost() -> None:
    import json
    import subprocess

    done = subprocess.run([sys.executable, TORTURE, "--cuts", str(CUTS), "--seed", str(SEED),
                           "--nested", "1"], text=True, capture_output=True, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failures"] == [] and done.returncode == 0, result
    assert result["cuts"] >= 30_000
    assert result["nested_cuts"] > 5_000
    assert result["micropython_cuts"] > 1_000
    assert set(result["models"]) == {"atomic", "prefix", "some bits", "most bits",
                                     "partial erase", "metastable"}


# --- the same ring with one protection off ---


def no_record_crc(m, patch) -> None:
    def valid(self, at: int, seed: int, seq: int) -> int:
        tag = m.seen[at + 1]
        return -1 if tag & 15 == 0 and m.seen[at] != 4 else seq + ((tag >> 4) - seq & 15)

    patch(m.Sectors, "valid", valid)


def no_head_crc(m, patch) -> None:
    from struct import unpack_from

    patch(m.Sectors, "_head_crc", lambda self, head: unpack_from("<I", head, m.sector.HEAD - 4)[0])


def header_after_records(m, patch) -> None:
    # An opening in two programs, the wrong way round: what is promised has no header yet.
    commit, program, head = m.Ring._commit, m.Sectors.program, m.sector.HEAD

    def in_parts(self, index: int, start: int, at: int, size: int) -> bool:
        if not start < head < start + size or size == head:
            return program(self, index, start, at, size)
        self.late = index, start, at, head - start
        return program(self, index, head, at + head - start, size - head + start)

    def header_later(self, size: int, count: int) -> None:
        late = self.__dict__.pop("late", None)
        if late:
            content = bytes(m.out)
            self.lay_head(self._ordinal, self.dropped, self._troubled, self.epoch,
                          self.next_seq - 1, self.acked)
            program(self, *late)
            m.out[:] = content
        commit(self, size, count)

    patch(m.Sectors, "program", in_parts)
    patch(m.Ring, "_commit", header_later)


def no_read_back(m, patch) -> None:
    program = m.Sectors.program

    def trusting(self, *where: int) -> bool:
        program(self, *where)
        return True

    patch(m.Sectors, "program", trusting)


def nothing_programmed_again(m, patch) -> None:
    recover, program = m.Ring._recover, m.Sectors.program

    def recover_softly(self, *what) -> None:
        patch(m.Sectors, "program", lambda self, index, start, at, size: (
            program(self, index, start, at, size) if m.out[at:at + 2] == b"\0\0" else True))
        recover(self, *what)
        patch(m.Sectors, "program", program)

    patch(m.Ring, "_recover", recover_softly)


def no_void(m, patch) -> None:
    def recover(self, held, doubts, lost) -> None:
        self._tail = min(self.grid(self._tail), self.sector_size)

    patch(m.Ring, "_recover", recover)


def write_on_at_the_tail(m, patch) -> None:
    patch(m.Ring, "_recover", lambda self, held, doubts, lost: None)


def any_mark_is_believed(m, patch) -> None:
    recover = m.Ring._recover

    def believe(self, *what) -> None:
        recover(self, *what)
        self._ready = self._mark[0] == self._next

    patch(m.Ring, "_recover", believe)


def mark_before_erase(m, patch) -> None:
    def prepare(self) -> None:
        self._ready = True

    patch(m.Ring, "prepare", prepare)


def no_trouble_flag(m, patch) -> None:
    def skip(self) -> None:
        self._next, self._ready = self._next + 1, False
        if self._next % self.sectors == self._ordinal % self.sectors and self._ordinal >= 0:
            self._next += 1

    patch(m.Ring, "_skip", skip)


def stale_state_is_believed(m, patch) -> None:
    def warm(self, saved) -> bool:
        (self.epoch, ordinal, self.next_seq, self.acked, self.dropped, self._seed, self._tail,
         self._last, self._last_seq, flags) = saved
        self._ordinal = -1 if ordinal == 0xFFFFFFFF else ordinal
        self._next, self._ready = flags >> 2, bool(flags & 1)
        return True

    patch(m.Ring, "_warm", warm)


def sequences_after_damage(m, patch) -> None:
    recover = m.Ring._recover

    def forget(self, held, doubts, lost) -> None:
        following = self.next_seq
        recover(self, held, doubts, False)
        self.next_seq = following

    patch(m.Ring, "_recover", forget)


def what_wavers_keeps_no_number(m, patch) -> None:
    recover, note = m.Ring._recover, m.Ring._note

    def forget(self, held, doubts, lost) -> None:
        patch(m.Ring, "_note", lambda self, acked: None)
        recover(self, held, doubts, lost)
        patch(m.Ring, "_note", note)

    patch(m.Ring, "_recover", forget)


def what_was_cut_short_hides_what_followed(m, patch) -> None:
    opened_from = m.Ring._opened_from

    def until_the_end(self, ordinal: int) -> tuple[int, int, int]:
        following, first_seq, seed = opened_from(self, ordinal)
        self.load(following % self.sectors)
        return following, Later(first_seq), seed

    class Later(int):
        __le__ = __lt__ = lambda self, other: False

    patch(m.Ring, "_opened_from", until_the_end)


def acknowledgement_only_in_ram(m, patch) -> None:
    def acknowledge(self, seq: int) -> None:
        self.acked = max(self.acked, seq)

    patch(m.Ring, "acknowledge", acknowledge)


def newest_goes_first(m, patch) -> None:
    opened = m.Ring._opened

    def jump(self, seed: int) -> None:
        opened(self, seed)
        self._next += 1

    patch(m.Ring, "_opened", jump)


def what_is_followed_by_blank_is_the_newest(m, patch) -> None:
    patch(m.Ring, "_first_lap", lambda self: True)


PLANTED = [no_record_crc, no_head_crc, header_after_records, no_read_back,
           nothing_programmed_again, no_void, write_on_at_the_tail,
           any_mark_is_believed, mark_before_erase, no_trouble_flag, stale_state_is_believed,
           sequences_after_damage, what_wavers_keeps_no_number,
           what_was_cut_short_hides_what_followed, acknowledgement_only_in_ram, newest_goes_first,
           what_is_followed_by_blank_is_the_newest]


def nothing(m, patch) -> None:
    pass


def found(torturer, exhaustive: int = 40, drawn: int = 40) -> bool:
    """Is anything broken? What shows without any cut is found sooner, so that comes first."""
    for density in (0, None):
        for number in range(exhaustive + (drawn if density is None else 60)):
            case = (list(torturer.cases.exhaustive(1))[number] if number < exhaustive
                    else torturer.cases.draw(SEED, number))
            if density is not None:
                case.density = density
            try:
                case.run(torturer.Tally())
            except torturer.Broken:
                return True
    return False


def test_the_ring_as_it_is_passes_the_same_cases(torturer) -> None:
    assert not found(torturer, exhaustive=4, drawn=3)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_bug_is_found(plant: Callable, torturer, monkeypatch) -> None:
    plant(torturer, monkeypatch.setattr)
    assert found(torturer), "the torturer noticed nothing"
