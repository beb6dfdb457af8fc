"""The compiler: every architecture, one unit, the same bytes each time, its own errors told."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from elftools.elf.elffile import ELFFile

from outpost import compile as compiler
from outpost.compile import ARCHITECTURES, CompileError, compile_module

CODE = """
#include <stdint.h>
static int32_t twice(int32_t x) { return 2 * x; }
int32_t entry(const int16_t *x);
int32_t entry(const int16_t *x) { return twice(x[3]); }
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "unit.c"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES.values()
                                  if arch.machine != "EM_XTENSA"], ids=lambda arch: arch.name)
def test_object_is_for_the_architecture(arch, source, tmp_path):
    with compile_module([source], [], arch.name, tmp_path / "unit.o").open("rb") as stream:
        elf = ELFFile(stream)
        assert elf["e_machine"] == arch.machine
        assert elf["e_type"] == "ET_REL"
        assert elf.elfclass == arch.word * 8


@pytest.mark.parametrize(("arch", "hard"), [("armv7m", False), ("armv7emsp", True),
                                            ("armv7emdp", True)])
def test_floats_stay_in_the_floating_point_unit(arch, hard, tmp_path):
    source = tmp_path / "unit.c"
    source.write_text("float entry(float a, float b);\n"
                      "float entry(float a, float b) { return a * b; }\n")
    with compile_module([source], [], arch, tmp_path / "unit.o").open("rb") as stream:
        names = {symbol.name for symbol in ELFFile(stream).get_section_by_name(".symtab")
                 .iter_symbols()}
    assert ("__aeabi_fmul" in names) != hard


def test_several_sources_are_one_unit(tmp_path):
    (tmp_path / "a.c").write_text("static int f(int x) { return x + 1; }\n")
    (tmp_path / "b.c").write_text("int entry(void);\nint entry(void) { return f(41); }\n")
    compile_module([tmp_path / "a.c", tmp_path / "b.c"], [], "x64", tmp_path / "unit.o")


def test_same_bytes_whoever_compiles(source, tmp_path):
    def once(number):
        return compile_module([source], [], "armv6m", tmp_path / f"{number}.o").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(once, range(4)))) == 1


def test_errors_are_the_compilers_own(tmp_path):
    source = tmp_path / "broken.c"
    source.write_text("int entry(void);\nint entry(void) { return nothing; }\n")
    with pytest.raises(CompileError, match=r"armv6m: broken.c doesn't compile:(.|\n)*"
                                           r"broken.c:2:.*undeclared identifier 'nothing'"):
        compile_module([source], [], "armv6m", tmp_path / "unit.o")
    assert not (tmp_path / "unit.o").exists()


def test_warnings_are_errors(tmp_path):
    source = tmp_path / "doubtful.c"
    source.write_text("int entry(int x);\nint entry(int x) { int unused; return x; }\n")
    with pytest.raises(CompileError, match="unused"):
        compile_module([source], [], "x64", tmp_path / "unit.o")


def test_unknown_architecture_lists_the_known(source, tmp_path):
    with pytest.raises(CompileError, match="'z80'.*armv6m"):
        compile_module([source], [], "z80", tmp_path / "unit.o")


def test_missing_compiler_says_how_to_get_it(source, tmp_path, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "python: No module named ziglang")

    monkeypatch.setattr(compiler.subprocess, "run", run)
    with pytest.raises(CompileError, match="pip install ziglang"):
        compile_module([source], [], "x64", tmp_path / "unit.o")
