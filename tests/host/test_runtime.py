"""Our own runtime for small cores, compiled for this machine and held against its arithmetic."""

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpost.features import _compiler
from outpost.paths import NATIVE

U32, U64 = ctypes.c_uint32, ctypes.c_uint64
I32, I64 = ctypes.c_int32, ctypes.c_int64

# bits of floats where rounding and special cases live, and of any others
EDGES = [0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x3F800000, 0x3F800001, 0x3F7FFFFF,
         0x40490FDB, 0x4B800000, 0x4F000000, 0x4F7FFFFF, 0x5F000000, 0x7F7FFFFF, 0x7F800000,
         0x7F800001, 0x7FC00000]
floats = st.one_of(st.sampled_from(EDGES + [bits | 1 << 31 for bits in EDGES]),
                   st.integers(0, 2**32 - 1),
                   st.builds(lambda sign, exponent, digits: sign << 31 | exponent << 23 | digits,
                             st.integers(0, 1), st.integers(120, 140), st.integers(0, 2**23 - 1)))
many = settings(max_examples=1000)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("runtime") / "runtime.so"
    sources = [str(NATIVE / "runtime" / name) for name in ("float.c", "integer.c")]
    subprocess.run([*_compiler(), "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC",
                    "-shared", "-fno-builtin", "-Wno-builtin-declaration-mismatch",
                    "-DOUTPOST_HOST", "-o", str(path), *sources], check=True)
    return ctypes.CDLL(str(path))


def call(library, name, result, *arguments):
    function = getattr(library, name)
    function.restype = result
    function.argtypes = [type(argument) for argument in arguments]
    return function(*arguments)


def as_float(bits):
    return np.array(bits, np.uint32).view(np.float32)[()]


def same(bits, expected):
    """Compare bits with a float32; one NaN is as good as another."""
    expected = np.float32(expected)
    if np.isnan(expected):
        return bits == 0x7FC00000
    return bits == int(np.array(expected).view(np.uint32))


@many
@given(a=floats, b=floats)
def test_float_arithmetic(library, a, b):
    x, y = as_float(a), as_float(b)
    with np.errstate(all="ignore"):
        for name, expected in (("__addsf3", x + y), ("__subsf3", x - y), ("__mulsf3", x * y),
                               ("__divsf3", x / y)):
            got = call(library, name, U32, U32(a), U32(b))
            assert same(got, expected), (name, hex(got), expected)


@many
@given(a=floats, b=floats)
def test_float_comparison(library, a, b):
    x, y = as_float(a), as_float(b)
    pair = U32(a), U32(b)
    assert (call(library, "__eqsf2", I32, *pair) == 0) == (x == y)
    assert (call(library, "__nesf2", I32, *pair) != 0) == (x != y)
    assert (call(library, "__ltsf2", I32, *pair) < 0) == (x < y)
    assert (call(library, "__lesf2", I32, *pair) <= 0) == (x <= y)
    assert (call(library, "__gesf2", I32, *pair) >= 0) == (x >= y)
    assert (call(library, "__gtsf2", I32, *pair) > 0) == (x > y)
    assert (call(library, "__unordsf2", I32, *pair) != 0) == bool(np.isnan(x) or np.isnan(y))


@many
@given(bits=floats, whole=st.one_of(st.integers(0, 2**32 - 1),
                                    st.integers(0, 31).map(lambda n: (1 << n) + 1),
                                    st.integers(2**24 - 4, 2**24 + 4)))
def test_float_conversion(library, bits, whole):
    signed = I32(whole).value
    assert same(call(library, "__floatunsisf", U32, U32(whole)), np.uint32(whole))
    assert same(call(library, "__floatsisf", U32, I32(signed)), np.int32(signed))
    x = float(as_float(bits))
    if x == x and abs(x) != float("inf"):
        limits = max(-2**31, min(2**31 - 1, int(x)))
        assert call(library, "__fixsfsi", I32, U32(bits)) == limits
        assert call(library, "__fixunssfsi", U32, U32(bits)) == max(0, min(2**32 - 1, int(x)))


wholes = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda n: (1 << n) - 1),
                   st.integers(0, 63).map(lambda n: 1 << n), st.integers(0, 1000))


@many
@given(a=wholes, b=wholes.filter(bool))
def test_unsigned_division(library, a, b):
    assert call(library, "__udivdi3", U64, U64(a), U64(b)) == a // b
    assert call(library, "__umoddi3", U64, U64(a), U64(b)) == a % b
    a, b = a & 0xFFFFFFFF, b & 0xFFFFFFFF or 1
    assert call(library, "__udivsi3", U32, U32(a), U32(b)) == a // b
    assert call(library, "__umodsi3", U32, U32(a), U32(b)) == a % b


@many
@given(a=wholes, b=wholes.filter(bool))
def test_signed_division(library, a, b):
    for bits, kind, names in ((64, I64, ("__divdi3", "__moddi3")),
                              (32, I32, ("__divsi3", "__modsi3"))):
        x, y = kind(a).value, kind(b).value or 1
        quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        rest = x - quotient * y
        assert call(library, names[0], kind, kind(x), kind(y)) == kind(quotient).value, bits
        assert call(library, names[1], kind, kind(x), kind(y)) == rest


@many
@given(a=wholes, b=wholes, by=st.integers(0, 63))
def test_64_bits(library, a, b, by):
    assert call(library, "__muldi3", U64, U64(a), U64(b)) == a * b % 2**64
    assert call(library, "__ashldi3", U64, U64(a), I32(by)) == (a << by) % 2**64
    assert call(library, "__lshrdi3", U64, U64(a), I32(by)) == a >> by
    assert call(library, "__ashrdi3", I64, U64(a), I32(by)) == I64(a).value >> by


def test_division_by_zero_ends(library):
    assert call(library, "__udivsi3", U32, U32(5), U32(0)) == 2**32 - 1
    assert call(library, "__udivdi3", U64, U64(5), U64(0)) == 2**64 - 1
