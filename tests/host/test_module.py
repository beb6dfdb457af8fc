"""The module's Python API on real MicroPython: right answers, and no argument that crashes it."""

from pathlib import Path

import pytest

from outpost.compile import compile_module
from outpost.link import link
from outpost.paths import NATIVE

FAKE = Path(__file__).parents[1] / "fakes/model"

PREPARE = """
import gc
from array import array
import fake as m
window = array("h", [20, -400, 5, 6, 7, 8, 9, 999])
features, votes = array("h", bytes(16)), bytearray(3)
def refused(function, *arguments):
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    raise AssertionError(arguments)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the hand-made model as fake.mpy."""
    folder = tmp_path_factory.mktemp("module")
    obj = compile_module([NATIVE / "module.c"], [FAKE, NATIVE], "x64", folder / "fake.o")
    (folder / "fake.mpy").write_bytes(link(obj, "x64", "fake"))
    return folder


@pytest.fixture
def run(folder, on_micropython):
    """Run code after PREPARE; return what it prints, line by line."""
    return lambda code: on_micropython(PREPARE + code, path=[folder]).splitlines()


def test_shape(run):
    assert run("print(m.ABI, m.VERSION, m.WINDOW, m.CHANNELS, m.FEATURES, m.CLASSES, m.TREES)"
               ) == ["1 7 4 2 8 3 3"]


def test_answers(run):
    assert run("""
print(m.classify(window, features, votes), features, list(votes))
print(m.predict(array("h", [0, 0, 0, 0, 0, 0, 0, 0]), votes), list(votes))
print(m.predict(array("h", [10, 0, -1, 5, 0, 0, 0, 1000]), votes), list(votes))
print(m.features(window, features))
""") == ["1 array('h', [20, -400, 5, 6, 7, 8, 9, 999]) [0, 2, 1]",
         "0 [2, 0, 1]",
         "0 [1, 1, 1]",  # of equals, the first
         "None"]


def test_whatever_holds_the_right_memory_will_do(run):
    assert run("""
flat = bytes(memoryview(window))
wide = array("h", [77]) + window
for given in (window, memoryview(window), bytes(flat), bytearray(flat), memoryview(flat),
              array("B", flat), memoryview(wide)[1:], memoryview(bytearray(2) + flat)[2:]):
    for out in (bytearray(3), array("B", bytes(3)), memoryview(bytearray(3)),
                memoryview(bytearray(5))[1:4]):
        for between in (features, bytearray(16), memoryview(array("h", bytes(16)))):
            assert m.classify(given, between, out) == 1, (given, out)
            assert bytes(out) == bytes([0, 2, 1])
            assert bytes(memoryview(between)) == flat
        assert m.predict(given, out) == 1
print("OK")
""") == ["OK"]


def test_refusals_say_what_is_wanted(run):
    told = run("""
print(refused(m.classify, None, features, votes))
print(refused(m.classify, window, None, votes))
print(refused(m.classify, window, features, None))
print(refused(m.predict, array("h", bytes(14)), votes))
print(refused(m.predict, features, bytearray(4)))
print(refused(m.features, array("h", bytes(18)), features))
""")
    assert told == ["window: array('h') of 4*2", "features: array('h') of 8",
                    "votes: bytearray of 3", "features: array('h') of 8", "votes: bytearray of 3",
                    "window: array('h') of 4*2"]


def test_unsuitable_things_are_refused(run):
    assert run("""
text = "0123456789abcdef"
for bad in (None, True, 7, -1, 1 << 70, 1.5, text, text[:8], (), [0] * 8, {}, print, ValueError, m,
            object(), range(8), array("H", bytes(16)), array("b", bytes(16)),
            array("i", bytes(16)), array("f", bytes(16)), array("d", bytes(16)),
            array("h", bytes(14)), array("h", bytes(18)), array("h"), b"", b"x", bytearray(15),
            memoryview(b""), memoryview(bytearray(17))[1:]):
    refused(m.predict, bad, votes)
    refused(m.features, bad, features)
    refused(m.features, window, bad)
    refused(m.classify, bad, features, votes)
    refused(m.classify, window, bad, votes)
    refused(m.predict, features, bad)
    refused(m.classify, window, features, bad)
print("OK")
""") == ["OK"]


def test_outputs_must_be_writable(run):
    assert run("""
kept = bytes(16)
for bad in (kept, memoryview(kept)):
    refused(m.features, window, bad)
    refused(m.classify, window, bad, votes)
kept_votes = b"abc"
for bad in (kept_votes, memoryview(kept_votes), "abc"):
    refused(m.predict, features, bad)
    refused(m.classify, window, features, bad)
print(kept == bytes(16), kept_votes)
""") == ["True b'abc'"]


def test_wrong_number_of_arguments(run):
    assert run("""
for call in (lambda: m.predict(features), lambda: m.predict(), lambda: m.features(window),
             lambda: m.predict(features, votes, 1), lambda: m.classify(window, features),
             lambda: m.predict(features, votes_out=votes)):
    try:
        call()
    except TypeError:
        continue
    raise AssertionError
print("OK")
""") == ["OK"]


def test_known_types_are_checked_as_strictly(run):
    """The short cut for arrays seen before must not let anything else through."""
    assert run("""
m.classify(window, features, votes)  # the types are known from here on
class Bytes(bytearray): pass
class Shorts(array): pass
assert m.predict(features, Bytes(3)) == m.predict(features, votes)
shorts = Shorts("h", bytes(16))
assert m.predict(shorts, votes) == 0
for bad in (array("H", bytes(16)), array("h", bytes(18)), bytearray(3), bytearray(8), Bytes(17),
            array("B", bytes(8)), memoryview(features)[1:]):
    refused(m.predict, bad, votes)
for bad in (bytearray(2), bytearray(4), b"abc", memoryview(b"abc"), features, Bytes(4)):
    refused(m.predict, features, bad)
grown = array("h", bytes(16))
assert m.predict(grown, votes) == 0
for i in range(100):
    grown.append(i)
    refused(m.predict, grown, votes)
print("OK")
""") == ["OK"]


def test_what_was_refused_first_spoils_nothing(run):
    assert run("""
for bad in ("abcdefgh01234567", b"abcdefgh01234567", memoryview(b"abcdefgh01234567"), None):
    try:
        m.predict(bad, votes)
    except ValueError:
        pass
    refused(m.classify, window, b"0123456789abcdef", votes)
    refused(m.predict, window, "abc")
print(m.classify(window, features, votes))
""") == ["1"]


def test_a_callers_own_names_dont_mislead_it(run):
    assert run("""
right = ValueError
def go():
    global ValueError
    ValueError = 5
    try:
        m.predict(None, votes)
    except right as error:
        print(repr(error))
go()
""") == ["""ValueError("features: array('h') of 8",)"""]


def test_exceptions_outlive_the_module(run):
    assert run("""
import sys
try:
    m.predict(None, votes)
except ValueError as error:
    kept = error
del m, sys.modules["fake"]
for i in range(20):
    gc.collect()
    bytearray(1000)
print(kept)
""") == ["features: array('h') of 8"]


def test_steady_state_allocates_nothing(run):
    assert run("""
def loop():
    for i in range(100):
        m.classify(window, features, votes)
        m.predict(features, votes)
        m.features(window, features)
def allocated():
    before = gc.mem_alloc()
    loop()
    return gc.mem_alloc() - before
allocated()
gc.collect()
gc.disable()
print(allocated())
""") == ["0"]


def test_code_survives_the_collector(run):
    assert run("""
for i in range(50):
    gc.collect()
    junk = [bytearray(100) for j in range(50)]
    assert m.classify(window, features, votes) == 1
print("OK")
""") == ["OK"]


def test_junk(run):
    """Thousands of random calls: an answer or an exception, never a crash, nothing overrun."""
    assert run("""
import random
random.seed(5)
guard = bytearray(64)
def thing():
    kind = random.randrange(16)
    size = random.choice((0, 1, 2, 3, 4, 7, 8, 9, 14, 15, 16, 17, 18, 32))
    start = random.randrange(4)
    if kind < 3:
        return array("h", [random.randrange(-32768, 32768) for i in range(size)])
    if kind == 3:
        return bytearray(size)
    if kind == 4:
        return memoryview(bytearray(size + 3))[start:start + size]
    if kind == 5:
        return bytes(size)
    if kind == 6:
        return memoryview(array("h", bytes(2 * size + 6)))[start:start + size]
    if kind == 7:
        return array(random.choice("bBhHiIlLqQfd"), bytes(8 * size))
    if kind == 8:
        return "x" * size
    if kind == 9:
        return memoryview(bytes(size))
    if kind == 10:
        return memoryview(guard)[16:16 + size]
    return random.choice((None, size, -size, 1 << 80, 2.5, [size], (size,), {}, m, m.predict, gc,
                          True, print, object(), range(size)))
functions = ((m.features, (window, features)), (m.predict, (features, votes)),
             (m.classify, (window, features, votes)))
answered = bad = 0
for i in range(20000):
    function, right = random.choice(functions)
    try:
        answer = function(*[random.choice((good, thing())) for good in right])
        assert answer is None or 0 <= answer < 3
        answered += 1
    except ValueError:
        bad += 1
assert guard[:16] == bytes(16) and guard[48:] == bytes(16)
assert m.classify(array("h", [20, -400, 5, 6, 7, 8, 9, 999]), features, votes) == 1
print(answered > 3000, bad > 10000)
""") == ["True True"]
