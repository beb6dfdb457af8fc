# Outpost's node: wakes, senses, decides, remembers, reports when it can, and sleeps.
# Where to begin reading: cycle.py. For the REPL: status(), selftest(), log(), change() and
# capture().


def status():
    from node import debug
    debug.status()


def selftest():
    from node import debug
    return debug.selftest()


def log(count=20):
    from node import debug
    debug.log(count)


def install(forced=False):
    from node import debug
    return debug.install(forced)


def change(**values):
    from node import debug
    debug.change(**values)


def capture(label, count=1):
    from node import debug
    debug.capture(label, count)
