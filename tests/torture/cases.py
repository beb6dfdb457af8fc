"""Which cases are tried: a few exhaustive ones, then as many as wanted from a seed."""

from flash import BAD, Dice
from life import Case

TINY = (("append", 1), ("append", 8), ("prepare",), ("extend", 2, 3), ("ack", 1), ("append", 5),
        ("append", 7), ("cold",), ("append", 4), ("append", 9), ("append", 2), ("prepare",),
        ("append", 6), ("warm",), ("append", 0), ("ack", 0), ("append", 9), ("append", 9))

# Of 16 sectors, beside and astride the middle, where a search looks first: the first bad one.
NEIGHBOURS = ((5, ("stuck", "dead", "stuck")), (7, ("noise", "stuck", "stuck")),
              (5, ("error", "stuck", "dead")), (7, ("error", "stuck", "dead")))

# Both sectors where a search begins are bad, of so few that it sees hardly any other.
CROSSROADS = ((4, "error", 3), (5, "error", 3), (4, "stuck", 12), (6, "dead", 6))

STEPS = (("append", 24), ("extend", 6), ("ack", 5), ("prepare", 6), ("cold", 2), ("warm", 3),
         ("save", 1), ("stale", 1))


def exhaustive(nested):
    """Sectors that fail; then every flash operation and every byte of it.

    Of the cuts within recovery `nested` in 256 are tried; 256 is all.
    """
    for seed in range(80, 104):  # a sector that goes bad between its erase and its opening
        ops = [("append", 9)] * 3 + [("prepare",), ("bad", 1, "stuck"), ("append", 9)]
        yield Case(seed, ops, sectors=16, size=96, page=32, every=False)
    for first, sorts in NEIGHBOURS:
        neighbours = [("bad", first + i, sorts[i]) for i in range(3)]
        for at in (0, 9, 30):  # in the first lap and later
            ops = [("append", 9)] * at + neighbours
            ops += [("append", 9), ("append", 9), ("cold",)] * 20
            density = 20 if at or first == 7 else 256
            yield Case(40 + at, ops, sectors=16, size=96, page=32, every=False, density=density)
    for sectors, sort, at in CROSSROADS:
        ops = [("append", 9)] * at + [("ack", 2), ("bad", 0, "error")]
        ops += [("append", 9)] * 2 + [("bad", sectors // 2, sort)]
        ops += [("append", 9), ("ack", 0), ("cold",)] * sectors + [("append", 9)] * 8
        yield Case(60 + at, ops, sectors, size=96, page=32, depth=2, density=3, nested=3)
    yield Case(1, TINY[:8], sectors=3, size=80, page=24, depth=2, nested=nested)
    yield Case(2, TINY[8:], sectors=3, size=80, page=24, depth=2, nested=nested)
    for unit in (1, 16):
        yield Case(3 + unit, TINY * 3, sectors=4, size=128, page=32, unit=unit)
        yield Case(4 + unit, TINY * 2, sectors=3, size=256, page=64, unit=unit)
    yield Case(30, TINY, sectors=3, size=512, page=64, unit=256)


def workload(dice, length, longest):
    """Return random steps of a node's life."""
    names = []
    for name, weight in STEPS:
        names += [name] * weight
    ops = []
    prepare = dice.below(3)
    for _ in range(length):
        name = dice.choice(names)
        if name == "append":
            ops.append(("append", dice.below(longest)))
        elif name == "extend":
            count = 2 + dice.below(4)
            ops.append(("extend",) + tuple([dice.below(longest) for _ in range(count)]))
        elif name == "ack":
            ops.append(("ack", dice.below(6)))
        elif name != "prepare" or prepare:
            ops.append((name,))
        if prepare == 2 and dice.below(2):
            ops.append(("prepare",))
    return ops


def mishaps(dice, sectors, ops):
    """Put damage into a workload: sectors that go bad, are filled, wiped or swapped."""
    for _ in range(1 + dice.below(2)):
        sector = dice.below(sectors)
        sort = dice.below(8)
        if sort < 5:
            op = ("bad", sector, dice.choice(sorted(BAD)))
        elif sort == 5:
            op = ("fill", sector)
        elif sort == 6:
            op = ("wipe", sector)
        elif ("swap",) not in [op[:1] for op in ops]:
            op = ("swap", sector, dice.below(sectors))
        else:  # swapping twice can bring genuine old content back: nobody could tell
            op = ("fill", sector)
        ops.insert(dice.below(len(ops)), op)


def draw(seed, number):
    """Return case `number` of a seed."""
    dice = Dice(seed * 1000003 + number)
    sort = dice.below(8)
    if sort < 5:  # small sectors, wrap-around many times
        size = dice.choice((96, 128, 160, 256))
        page, unit = dice.choice((24, 32, 48)), dice.choice((1, 1, 4, 16))
        sectors = 3 + dice.below(5)
        ops = workload(dice, 20 + dice.below(100), dice.choice((4, 12, page - 9)))
        if sort >= 3:
            mishaps(dice, sectors, ops)
        return Case(dice.bits(), ops, sectors, size, page, unit, depth=1 + (dice.below(3) == 0),
                    density=dice.choice((6, 20, 40)), nested=2, random_content=dice.below(4) == 0)
    if sort < 7:  # many sectors: the search
        sectors = dice.choice((8, 11, 16, 33))
        ops = workload(dice, 20 + dice.below(sectors * 8), 8)
        if sort == 6:
            mishaps(dice, sectors, ops)
        return Case(dice.bits(), ops, sectors, 96, 32, dice.choice((1, 16)), every=False,
                    density=20, depth=1, random_content=dice.below(4) == 0)
    ops = []  # sectors as they are made
    for op in workload(dice, 40 + dice.below(60), dice.choice((16, 64, 240))):
        ops.append(op)
        if op[0] == "extend":
            ops.append(("extend",) + op[1:] * 6)
    return Case(dice.bits(), ops, 3 + dice.below(2), 4096, 256, dice.choice((1, 16, 256)),
                every=False, density=30, depth=1 + (dice.below(3) == 0), nested=6)
