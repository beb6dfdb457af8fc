# What became of a model package or of settings, also for the host: detail of an event UPDATE.

from micropython import const

KEPT = const(0)
# Why one was refused
MISSING = const(1)
TRUNCATED = const(2)
UNKNOWN = const(3)  # not a package, or of another version
NO_KEY = const(4)  # this node trusts nobody, or has nothing to check a signature with
FORGED = const(5)  # not signed by the key this node trusts
DAMAGED = const(6)  # what is on flash is not what was signed
WRONG_ARCH = const(7)
OLDER = const(8)
NO_ROOM = const(9)
WRONG_MODEL = const(10)  # the module does not load, or has another ABI or shape than told
WRONG_ANSWER = const(11)  # to a golden window
TOO_SLOW = const(12)
CRASHED = const(13)
UNFIT = const(14)  # its settings break a rule
ON_TRIAL = const(15)  # another is. In a record: this one is, and by itself that is no refusal
FAILED = const(16)  # a stage did, or the model would not load any more, while it was on trial
LATE = const(17)  # on trial the deadline came before the decision
CUT_OFF = const(18)  # on trial: settings with which the gateway is not reached any more
