"""Cut the power at every step of the flash ring: `make torture CUTS=1000000 SEED=1`.

Runs the exhaustive cases, then cases drawn from the seed until so many cuts are tried, on two
processes, and a share of them on MicroPython. The last line of output is a JSON object. A failure
prints the seed, the case's number and the shortest workload that shows it; `--case NUMBER` with
the same seed runs it again.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import outpost.device  # noqa: F401  # firmware/ on the path
from outpost.console import console, steps
from outpost.paths import FIRMWARE

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import draw, exhaustive  # noqa: E402
from flash import Broken  # noqa: E402
from life import Case, Tally  # noqa: E402

SORTS = {"lost": "lost", "phantom": "phantoms", "mount": "failed_mounts", "hang": "hangs",
         "rule": "broken_rules"}
SHARE = 25  # of so many cuts one is tried on MicroPython


def attempt(case: Case) -> tuple[Tally, Broken | None]:
    """Run a case; return what was tried and how it broke, if it did."""
    tally = Tally()
    try:
        case.run(tally)
    except Broken as broken:
        return tally, broken
    return tally, None


def shrink(case: Case, patience_s: float = 60) -> Case:
    """Leave out steps while the case still breaks in the same way."""
    end = time.monotonic() + patience_s
    sort = attempt(case)[1].sort
    size = len(case.ops) // 2
    while size and time.monotonic() < end:
        at = 0
        while at < len(case.ops) and time.monotonic() < end:
            kept, case.ops = case.ops, case.ops[:at] + case.ops[at + size:]
            broken = attempt(case)[1]
            if broken is None or broken.sort != sort:
                case.ops = kept
                at += size
        size //= 2
    return case


def numbered(seed: int, number: int, nested: int) -> Case:
    """Return a case: the exhaustive ones have negative numbers."""
    return list(exhaustive(nested))[-number - 1] if number < 0 else draw(seed, number)


def worker(job: tuple[int, int, int]) -> tuple[int, Tally, str, str]:
    """Run one case in a process of its own."""
    tally, broken = attempt(numbered(*job))
    return job[1], tally, broken.sort if broken else "", broken.text if broken else ""


def begin_on_micropython(seed: int, cuts: int) -> subprocess.Popen:
    """Begin with drawn cases on the real interpreter, until so many cuts are tried."""
    from outpost.toolchain import unix

    code = f"import share; share.run({seed}, {cuts})"
    return subprocess.Popen([unix.micropython(), "-X", "heapsize=32M", "-c", code], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={"MICROPYPATH": f"{FIRMWARE}:{HERE}:.frozen"})


def end_on_micropython(running: subprocess.Popen) -> tuple[Counter, str]:
    """Wait for MicroPython's share; return its figures and how it broke, "" if it did not."""
    out, problem = running.communicate()
    try:
        found = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return Counter(failed_mounts=1), f"MicroPython: {out}{problem}"
    return Counter(found["counts"]), found["broken"]


def torture(cuts: int, seed: int, nested: int = 10, processes: int = 2) -> dict:
    """Try at least so many cuts; return the figures, keys as `make torture` prints them."""
    began = time.monotonic()
    total: Counter = Counter()
    models: Counter = Counter()
    failures: list[str] = []
    number = -len(list(exhaustive(nested)))
    interpreter = begin_on_micropython(seed, cuts // SHARE)
    title = f"cutting the power {cuts:,} times"
    with multiprocessing.Pool(processes) as pool, steps(title, cuts) as step:
        running: list = []
        while True:
            while len(running) < 2 * processes and total["cuts"] < cuts and len(failures) < 3:
                running.append(pool.apply_async(worker, ((seed, number, nested),)))
                number += 1
            if not running:
                break
            case, tally, sort, text = running.pop(0).get()
            total.update(cuts=tally.cuts, nested_cuts=tally.nested)
            models.update(tally.models)
            if sort:
                total[SORTS[sort]] += 1
                failures.append(f"seed {seed}, case {case}: {sort}: {text}")
                console.print(failures[-1], markup=False)
            step(f"case {case}: {total['cuts']:,} cuts, {len(failures)} broken", tally.cuts)
        step("MicroPython's share", 0)
        share, said = end_on_micropython(interpreter)
    if said:
        failures.append(f"on MicroPython: {said}")
    total.update(share)
    for text in failures[:1]:
        if text.startswith("seed"):
            case = int(text.split("case ")[1].split(":")[0])
            console.print(f"the shortest workload that shows it: "
                          f"{shrink(numbered(seed, case, nested))}", markup=False)
    return {"cuts": total["cuts"], "nested_cuts": total["nested_cuts"],
            "models": dict(sorted(models.items())),
            **{key: total[key] for key in SORTS.values()},
            "micropython_cuts": share["cuts"],
            "seconds": round(time.monotonic() - began, 1), "seed": seed, "failures": failures}


def main() -> int:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cuts", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--nested", type=int, default=10,
                         help="of 256 cuts within recovery so many, in the exhaustive cases")
    options.add_argument("--case", type=int, help="only this one, and shrink it if it fails")
    given = options.parse_args()
    if given.case is not None:
        case = numbered(given.seed, given.case, given.nested)
        tally, broken = attempt(case)
        if broken:
            print(f"{broken.sort}: {broken.text}\n{shrink(case)}")
        print(f"{tally.cuts} cuts")
        return broken is not None
    result = torture(given.cuts, given.seed, given.nested)
    print(json.dumps(result))
    return bool(result["failures"])


if __name__ == "__main__":
    sys.exit(main())
