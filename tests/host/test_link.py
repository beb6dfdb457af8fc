"""The linker and the file format: what comes out is sound, and what can't be done is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost import link as linker
from outpost import mpy
from outpost.compile import ARCHITECTURES, compile_module
from outpost.link import LinkError, link
from outpost.paths import NATIVE

FAKE = Path(__file__).parents[1] / "fakes/model"
NAMES = ["fake", "features", "predict", "classify", "ABI", "VERSION", "WINDOW", "CHANNELS",
         "FEATURES", "CLASSES", "TREES"]

HEAD = """
#include "abi.h"
mp_obj_t outpost_module(mp_obj_t a, mp_obj_t b);
mp_obj_t outpost_module(mp_obj_t a, mp_obj_t b)
{
    (void)a, (void)b;
"""

# those that need nothing but pip; tests/boards has all
every_arch = pytest.mark.parametrize("arch", [name for name, arch in ARCHITECTURES.items()
                                              if arch.machine != "EM_XTENSA"])


@pytest.fixture
def build(tmp_path):
    """Link C (the body of the module's entry, and what goes before it) and read it back."""
    def run(body, arch, before=""):
        source = tmp_path / "unit.c"
        source.write_text(before + HEAD + body + "\n}\n")
        obj = compile_module([source], [NATIVE], arch, tmp_path / "unit.o")
        return mpy.decode(link(obj, arch, "unit"), ARCHITECTURES[arch].word)
    return run


def fake_object(arch, folder):
    return compile_module([NATIVE / "module.c"], [FAKE, NATIVE], arch, folder / f"{arch}.o")


@every_arch
def test_module_of_a_model(arch, tmp_path):
    word = ARCHITECTURES[arch].word
    data = link(fake_object(arch, tmp_path), arch, "fake")
    module = mpy.decode(data, word)
    assert module.arch == ARCHITECTURES[arch].code
    assert module.qstrs == NAMES
    assert mpy.encode(module, word) == data
    # three functions and their three types, and all that is called in the interpreter
    targets = [fixup.target - mpy.TABLE for fixup in module.fixups if fixup.target >= mpy.TABLE]
    assert sorted(targets) == [0, 9, 13, 27, 34, 35, 56, 57, 65, 74, 79, 79, 80]
    inside = [fixup for fixup in module.fixups if fixup.target == mpy.TO_TEXT]
    assert len(inside) == 6
    for fixup in inside:
        content = module.rodata if fixup.in_rodata else module.text
        target = int.from_bytes(content[fixup.offset:fixup.offset + word], "little")
        assert target < len(module.text)


@every_arch
def test_same_bytes_each_time(arch, tmp_path):
    obj = fake_object(arch, tmp_path)
    assert link(obj, arch, "fake") == link(obj, arch, "fake")


@every_arch
def test_undefined_symbols_are_all_named(arch, build):
    with pytest.raises(LinkError, match=r"(?s)missing_one, used in .*missing_two, used in "):
        build("return missing_one() ? missing_two() : a;", arch,
              "int missing_one(void); void *missing_two(void);\n")


@every_arch
def test_initialised_variables_are_refused(arch, build):
    with pytest.raises(LinkError, match=r"\.data\.counter is writable data.*make it const"):
        build("return (mp_obj_t)(uintptr_t)counter++;", arch, "int counter = 3;\n")


@every_arch
def test_static_variables_are_refused_by_name(arch, build):
    with pytest.raises(LinkError, match=r"counter.*writable variable"):
        build("return (mp_obj_t)(uintptr_t)counter++;", arch, "static int counter;\n")


@every_arch
def test_global_variables_are_reached_through_the_loader(arch, build):
    module = build("return (mp_obj_t)(uintptr_t)counter++;", arch, "int counter;\n")
    assert module.bss == 4
    assert [fixup.target for fixup in module.fixups] == [mpy.TO_BSS]


@every_arch
def test_thread_local_variables_are_refused_by_name(arch, build):
    with pytest.raises(LinkError, match="counter|__tls_get_addr|__aeabi_read_tp|emutls"):
        build("return (mp_obj_t)(uintptr_t)counter++;", arch, "static __thread int counter;\n")


@every_arch
def test_pointers_in_constants(arch, build):
    module = build("return both[(uintptr_t)a & 1].start + both[(uintptr_t)b & 1].index;", arch,
                   '#include "abi.h"\n'
                   "static const int16_t low[] = {1, 2}, high[] = {3, 4};\n"
                   "static const struct { const int16_t *start; int index; } both[] = {\n"
                   "    {low + 1, 7}, {high, 9}};\n")
    word = ARCHITECTURES[arch].word
    assert len(module.fixups) == 2
    values = [module.text[int.from_bytes(module.text[f.offset:f.offset + word], "little"):][:2]
              for f in module.fixups]
    assert values == [b"\2\0", b"\3\0"]


@every_arch
def test_runtime_comes_only_when_used(arch, build):
    plain = build("return a == b ? a : b;", arch)
    copying = build("struct big { char x[400]; }; *(struct big *)a = *(struct big *)b; return a;",
                    arch)
    assert not plain.fixups
    assert len(plain.text) < 20
    table = [fixup.target - mpy.TABLE for fixup in copying.fixups]
    assert table in ([51], [])  # memmove, or copied in place


@pytest.mark.parametrize(("arch", "soft"), [
    ("armv6m", True), ("armv7m", True), ("rv32imc", True), ("armv7emsp", False),
    ("armv7emdp", False), ("x64", False)])
def test_floats_bring_their_arithmetic_along(arch, soft, build):
    module = build("float x = *(const float *)a; return x * x > 2.5f ? a : b;", arch)
    assert (len(module.text) > 150) == soft


def test_double_precision_is_refused_by_name(build):
    with pytest.raises(LinkError, match="__aeabi_dmul, used in .text.outpost_module"):
        build("double x = *(const double *)a; return x * x > 2.5 ? a : b;", "armv6m")


def test_object_of_another_architecture(tmp_path):
    with pytest.raises(LinkError, match=r"EM_ARM ET_REL, and rv32imc needs .* of EM_RISCV"):
        link(fake_object("armv6m", tmp_path), "rv32imc", "fake")


def test_no_object_at_all(tmp_path):
    path = tmp_path / "text.o"
    path.write_text("hello")
    with pytest.raises(LinkError, match=r"text\.o: no object file"):
        link(path, "x64", "text")
    with pytest.raises(LinkError, match=r"gone\.o: no object file"):
        link(tmp_path / "gone.o", "x64", "gone")


def test_module_without_a_start(tmp_path):
    source = tmp_path / "unit.c"
    source.write_text("int other(void);\nint other(void) { return 1; }\n")
    obj = compile_module([source], [], "x64", tmp_path / "unit.o")
    with pytest.raises(LinkError, match="no function outpost_module"):
        link(obj, "x64", "unit")


def test_too_much_alignment_is_refused(build):
    with pytest.raises(LinkError, match=r"table wants to lie on a multiple of 64"):
        build("return table + ((uintptr_t)a & 1);", "x64",
              '#include "abi.h"\n'
              "static const int16_t table[4] __attribute__((aligned(64))) = {1, 2, 3};\n")


@every_arch
def test_every_unknown_relocation_is_refused_by_name(arch, tmp_path, monkeypatch):
    obj = fake_object(arch, tmp_path)
    machine = ARCHITECTURES[arch].machine
    known = linker.FAMILIES[machine]
    refused = []
    for kind in known:
        with monkeypatch.context() as patch:
            patch.setitem(linker.FAMILIES, machine, {k: known[k] for k in known if k != kind})
            try:
                link(obj, arch, "fake")
            except LinkError as error:
                assert f": relocation {kind} of {machine} isn't known" in str(error)
                assert " used in " in str(error)
                refused.append(kind)
    assert len(refused) >= 2


# The file format


def test_bytes_of_the_smallest_module():
    module = mpy.Module(arch=4, qstrs=["f"], text=b"\x00\x20\x70\x47",
                        fixups=[mpy.Fixup(False, 0, mpy.TABLE + 65)])
    assert mpy.encode(module, 4) == bytes([
        ord("M"), 6, 4 << 2 | 3, 31,  # header
        1, 0, 2, ord("f"), 0,  # one name, no objects; the name
        4 << 3 | 2, 0x00, 0x20, 0x70, 0x47,  # code
        0x10,  # relocated
        (9 + 65) << 1 | 1, 0, 0xFF])  # word 0 of the code: entry 65 of the table


@st.composite
def modules(draw):
    words = st.binary(max_size=64).map(lambda data: data + bytes(-len(data) % 4))
    text, rodata = draw(words), draw(words)
    bss = draw(st.sampled_from([0, 4, 300]))
    places = [(in_rodata, offset) for in_rodata, data in ((False, text), (True, rodata))
              for offset in range(0, len(data), 4)]
    targets = [mpy.TO_TEXT, mpy.TO_QSTRS, mpy.TABLE, mpy.TABLE + 86]
    targets += ([mpy.TO_RODATA] if rodata else []) + ([mpy.TO_BSS] if bss else [])
    fixups = [mpy.Fixup(*place, draw(st.sampled_from(targets))) for place in places
              if draw(st.booleans())]
    names = draw(st.lists(st.from_regex(r"[a-z]{1,200}", fullmatch=True), min_size=1, max_size=4))
    return mpy.Module(draw(st.integers(1, 12)), names, text, rodata, bss, fixups)


@given(modules())
def test_what_is_written_is_read_back(module):
    assert mpy.decode(mpy.encode(module, 4), 4) == module


@given(modules(), st.data())
def test_cut_files_are_refused(module, data):
    content = mpy.encode(module, 4)
    with pytest.raises(mpy.MpyError):
        mpy.decode(content[:data.draw(st.integers(4, len(content) - 1))], 4)


def test_what_a_loader_would_take_on_trust():
    good = mpy.Module(arch=2, qstrs=["f"], text=bytes(16))
    for fixups, words in (
            ([mpy.Fixup(False, 16, mpy.TO_TEXT)], "word 0x10 of 0x10 bytes"),
            ([mpy.Fixup(False, 12, mpy.TO_TEXT)], "word 0x8 of 0x10|word 0xc of 0x10"),
            ([mpy.Fixup(True, 0, mpy.TO_TEXT)], "word 0x0 of 0x0"),
            ([mpy.Fixup(False, 0, mpy.TO_BSS)], "target 2"),
            ([mpy.Fixup(False, 0, mpy.TABLE + 87)], "target 96"),
            ([mpy.Fixup(False, 0, mpy.TO_TEXT), mpy.Fixup(False, 0, mpy.TO_QSTRS)], "twice")):
        data = mpy.encode(replace(good, fixups=fixups), 4)
        if fixups[0].offset % 8 or len(fixups) > 1:
            with pytest.raises(mpy.MpyError):
                mpy.decode(data, 8)
            continue
        with pytest.raises(mpy.MpyError, match=words):
            mpy.decode(data, 4)
    with pytest.raises(mpy.MpyError, match="header"):
        mpy.decode(b"M\x05" + mpy.encode(good, 4)[2:], 4)
    with pytest.raises(mpy.MpyError, match="1 bytes follow"):
        mpy.decode(mpy.encode(good, 4) + b"\0", 4)
