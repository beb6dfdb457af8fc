# The node's Python for a firmware's manifest, which tells in `without` what its board has no use
# for. An import looks through the names of all that is frozen three times, from the top: what each
# boot needs comes first, in that order.

from pathlib import Path

BOOT = (
    "__init__", "board/__init__", "cycle", "model", "post", "record", "schedule", "modes",
    "settings", "latency", "outbox", "ring", "mount", "sector", "state", "energy", "board/rp2",
    "board/esp32", "sensor/__init__", "sensor/lsm6dsox", "sensor/fifo", "gate", "summary",
)

here = Path("../firmware/node")
boot = [f"{name}.py" for name in BOOT]
others = sorted(path.relative_to(here).as_posix() for path in here.rglob("*.py"))
without = [f"{name}.py" for name in options.without]
package("node", [file for file in dict.fromkeys(boot + others) if file not in without],
        base_path="../firmware", opt=3)
module("main.py", base_path="../firmware", opt=3)
