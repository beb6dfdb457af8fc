"""What goes into flash: file system, partition table, UF2, MicroPython's image, identities."""

import hashlib
import json
import stat
import struct
import subprocess
import sys

import pytest
from fakes import micropython_image

from outpost import boards, bytecode, esp32, image, provision
from outpost.errors import OutpostError
from outpost.image import ImageError, Region
from outpost.paths import BOARDS


@pytest.fixture
def board():
    return boards.load("esp32")


def test_a_file_system_holds_its_files_and_is_the_same_every_time():
    files = {"main.py": b"print(1)\n", "node/ring.mpy": bytes(range(256)) * 40, "node/a/b": b""}
    first = image.littlefs(files, 0x20000)
    assert len(first) == 0x20000
    assert first == image.littlefs(dict(reversed(files.items())), 0x20000)
    assert image.read_littlefs(first) == files


def test_what_a_small_file_holds_lies_in_no_directory():
    disk = image.littlefs({"main.py": b"print(1)\n"}, 0x20000)
    root = disk[:2 * image.SECTOR]
    assert b"main.py" in root and b"print(1)" not in root and disk.count(b"print(1)") == 1


def test_micropython_mounts_the_file_system(on_micropython, tmp_path):
    (tmp_path / "fs").write_bytes(image.littlefs(
        {"a/b.txt": b"hello" * 1000, "small": b"few"}, 0x10000))
    assert on_micropython(
        "import vfs\n"
        "class Device:\n"
        "    def __init__(self): self.data = bytearray(open('fs', 'rb').read())\n"
        "    def readblocks(self, n, buf, at=0):\n"
        "        buf[:] = self.data[n * 4096 + at:n * 4096 + at + len(buf)]\n"
        "    def writeblocks(self, n, buf, at=0): raise OSError(30)\n"
        "    def ioctl(self, op, arg): return {4: 16, 5: 4096}.get(op, 0)\n"
        "vfs.mount(vfs.VfsLfs2(Device()), '/fs')\n"
        "print(open('/fs/a/b.txt').read() == 'hello' * 1000, open('/fs/small').read())"
    ) == "True few\n"


def test_micropython_imports_from_a_bundle(on_micropython, tmp_path):
    code = bytecode.build()
    whole = image.bundle({path.relative_to(code).as_posix(): path.read_bytes()
                          for path in (code / "node").rglob("*.mpy")})
    (tmp_path / "node.bundle").write_bytes(whole)
    (tmp_path / "bundle.mpy").write_bytes((code / "bundle.mpy").read_bytes())
    assert on_micropython(
        "import sys\n"
        "sys.path.insert(0, '')\n"
        "import bundle\n"
        "from node import cycle\n"
        "print(sys.path[0], cycle.__file__, sys.modules['node.modes'].__file__)\n"
        "from node.uplink.session import Session\n"  # later, and a folder deeper
        "for name in ('node.nothing', 'nothing'):\n"
        "    try: __import__(name)\n"
        "    except ImportError as error: print(error)"
    ) == ("/bundle /bundle/node/cycle.mpy /bundle/node/modes.mpy\n"
          "no module named 'node.nothing'\nno module named 'nothing'\n")


def test_a_bundle_gives_back_its_files():
    files = {"node/a.mpy": b"a" * 300, "node/b/__init__.mpy": b"", "node/b/c.mpy": b"c"}
    whole = image.bundle(files)
    assert image.read_bundle(whole) == files == image.read_bundle(whole + b"more")
    (size,) = struct.unpack_from("<H", whole)
    assert json.loads(whole[2:2 + size]) == {
        "/node": [], "/node/b": [], "/node/a.mpy": [0, 300], "/node/b/__init__.mpy": [300, 0],
        "/node/b/c.mpy": [300, 1]}


def test_files_that_do_not_fit_are_named_with_the_room_there_is():
    with pytest.raises(ImageError, match=r"1 files of 70,000 bytes don't fit .* 65,536 bytes"):
        image.littlefs({"big": bytes(70000)}, 0x10000)


def test_the_partition_table_is_what_esp_idf_documents(board):
    table = image.partition_table(board)
    assert len(table) == 0xC00
    # Programming guide, "Partition Tables": magic AA 50, type, subtype, offset, size, name, flags.
    ring = board.flash.region("ring")
    entry = (b"\xaa\x50" + b"\x01\x40" + struct.pack("<II", ring.offset, ring.size)
             + b"ring".ljust(16, b"\0") + bytes(4))
    assert entry in table
    assert table.startswith(bytes.fromhex("aa50" "0102" "00900000" "00600000") + b"nvs\0")
    end = table.index(b"\xeb\xeb" + b"\xff" * 14)
    assert end % 32 == 0 and table[end + 16:end + 32] == hashlib.md5(table[:end]).digest()
    assert set(table[end + 32:]) == {0xFF}
    found = image.read_partition_table(table)
    assert found["vfs"] == (0x200000, 0x100000) and found["ring"] == (0x300000, 0x100000)
    assert found["factory"] == (0x10000, 0x1F0000)


def test_esp_idfs_partition_table_is_the_same(board):
    rows = [[cell.strip() for cell in line.split(",")]
            for line in (BOARDS / "esp32/partitions.csv").read_text().splitlines()
            if line and not line.startswith("#")]
    kinds = {"app": 0, "data": 1, "factory": 0, "nvs": 2, "phy": 1, "fat": 0x81, "0x40": 0x40}
    entries = b"".join(
        image.ENTRY.pack(b"\xaa\x50", kinds[kind], kinds[subtype], int(at, 0), int(size, 0),
                         name.encode(), 0) for name, kind, subtype, at, size in rows)
    assert image.partition_table(board).startswith(entries + b"\xeb\xeb")


@pytest.mark.parametrize("damage", [0, 5, 40, 0xA0 + 20])
def test_a_damaged_partition_table_says_nothing(board, damage):
    table = bytearray(image.partition_table(board))
    table[damage] ^= 1
    assert image.read_partition_table(bytes(table)) == {}
    assert image.read_partition_table(b"\xff" * 0xC00) == {}


def test_uf2_goes_there_and_back_in_whole_sectors():
    regions = [Region("a", 0, bytes(range(256)) * 20), Region("b", 0xA0000, b"\xff" * 8192)]
    content = image.write_uf2(regions)
    assert len(content) % 512 == 0
    (first, code), (second, data) = image.read_uf2(content)
    assert (first, second) == (0, 0xA0000)
    assert code == regions[0].data.ljust(8192, b"\xff") and data == regions[1].data


def test_uf2_as_micropythons_own_tool_writes_it(tmp_path):
    from outpost.toolchain import unix

    data = hashlib.sha256(b"x").digest() * 128  # 4 KB
    (tmp_path / "in.bin").write_bytes(data)
    tool = unix.source() / "tools/uf2conv.py"
    subprocess.run([sys.executable, tool, "-c", "-f", "RP2040", "-b", "0x10000000", "-o",
                    tmp_path / "out.uf2", tmp_path / "in.bin"], check=True, capture_output=True)
    theirs = (tmp_path / "out.uf2").read_bytes()
    assert image.write_uf2([Region("x", 0, data)]) == theirs
    assert image.read_uf2(theirs) == [(0, data)]


@pytest.mark.parametrize("break_it, words", [
    (lambda c: c[:-512], "block 0 is damaged, or blocks are missing"),
    (lambda c: c[:-1], "are no UF2 file"),
    (lambda c: c[:512] + b"x" + c[513:], "block 1 is damaged"),
    (lambda c: c.replace(struct.pack("<I", 0xE48BFF56), struct.pack("<I", 0xE48BFF59)),
     "for another chip"),
])
def test_a_bad_uf2_is_refused(break_it, words):
    content = break_it(image.write_uf2([Region("a", 0, bytes(4096))]))
    with pytest.raises(ImageError, match=words):
        image.read_uf2(content, "f.uf2")


# --- MicroPython's image ---


def test_an_image_is_split_without_its_partition_table(board, tmp_path):
    (tmp_path / "m.bin").write_bytes(micropython_image.combined())
    loader, application = esp32.split_image(tmp_path / "m.bin", board)
    assert (loader.name, loader.offset) == ("bootloader", 0x1000)
    assert (application.name, application.offset) == ("firmware", 0x10000)
    assert application.data == micropython_image.application()


@pytest.mark.parametrize("content, words", [
    (b"not an image", "too few for MicroPython's image"),
    (bytes(200000), "no boot loader where one must be"),
    (micropython_image.combined(chip=9), "its boot loader is for ESP32-S3, the board esp32 has"),
    (micropython_image.combined(app=micropython_image.application(9)), "lication is for ESP32"),
    (micropython_image.combined()[:-5000], "its application is cut off"),
    (micropython_image.combined().replace(b"second", b"sEcond", 1), "its boot loader is damaged"),
    (micropython_image.combined(app=micropython_image.part(0, bytes(5000))), "not MicroPython"),
    (micropython_image.combined(app=micropython_image.application(version="1.19.1")),
     r"MicroPython v1\.19; 1\.24 is the oldest"),
    (micropython_image.combined(app=micropython_image.application(size=0x1F0000)),
     "its partition 2,031,616"),
    (micropython_image.combined().replace(b"\xaa\x50", b"\xff\xff", 1), "no partition table at"),
])
def test_what_is_no_micropython_for_this_chip_is_refused(board, tmp_path, content, words):
    (tmp_path / "m.bin").write_bytes(content)
    with pytest.raises(esp32.Esp32Error, match=words):
        esp32.split_image(tmp_path / "m.bin", board)


def test_the_image_is_fetched_once_and_checked(board, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OUTPOST_MICROPYTHON", str(tmp_path))
    name = esp32.image_name(board)
    (tmp_path / name).write_bytes(micropython_image.combined()[:-100])
    with pytest.raises(esp32.Esp32Error, match="cut off"):
        esp32.find_image(board)
    (tmp_path / name).write_bytes(micropython_image.combined())
    found = esp32.find_image(board)
    assert found.read_bytes() == micropython_image.combined()
    (tmp_path / name).unlink()
    assert esp32.find_image(board) == found


def test_without_a_way_to_it_the_message_says_which_file_goes_where(board, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OUTPOST_MICROPYTHON", (tmp_path / "nowhere").as_uri())
    with pytest.raises(esp32.Esp32Error) as told:
        esp32.find_image(board)
    for word in ("ESP32_GENERIC-20250415-v1.25.0.bin", str(tmp_path / "cache"), "--firmware FILE"):
        assert word in str(told.value)
    assert list((tmp_path / "cache/outpost/micropython").iterdir()) == []


# --- who is who ---


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/outpost/nodes"


def test_a_key_is_kept_for_its_owner_alone(store):
    node = provision.choose("esp32", "aa:bb")
    path = provision.save(node)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert len(node.key) == 32 and node.key.hex() not in repr(node)
    assert json.loads(path.read_text())["key"] == node.key.hex()
    assert [entry.name for entry in store.iterdir()] == [path.name]


def test_a_board_stays_the_node_it_was(store):
    first = provision.choose("esp32", "aa:bb")
    assert provision.choose("esp32", "aa:bb").key != first.key  # not kept before it is saved
    provision.save(first)
    assert provision.choose("esp32", "aa:bb") == first
    assert provision.choose("esp32", "aa:bc").number != first.number
    assert provision.choose("esp32", number=first.number) == first
    one, two = provision.choose("rp2040"), provision.choose("rp2040")
    assert one.number != two.number and one.key != two.key
    provision.save(provision.Node(5, bytes(32), "esp32", "aa:bb"))  # the chip is another node now
    assert provision.choose("esp32", "aa:bb").number == 5
    assert provision.find(first.number) == provision.Node(first.number, first.key, "esp32")
    with pytest.raises(OutpostError, match="no node 7 .*there are .*5"):
        provision.choose("esp32", number=7)
