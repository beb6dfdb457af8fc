# What records say: their kinds, and each kind's payload. The host reads with this file too.
# All numbers are little-endian. Tables: docs/wake.md.

from micropython import const

# Kinds
READING = const(1)  # u8 source, then int16 values: a summary of the window
DECISION = const(2)  # u8 class, u8 share of the votes in 255ths, u8 smoothed class, u8 BY_*, mode
EVENT = const(3)  # u8 reason, u8 detail, u8 value
STATE = const(4)  # STATE_FORMAT
WINDOW = const(5)  # u8 part, u8 parts, int16 samples: a window that the model was unsure about
COUNT = const(6)  # COUNT_FORMAT
DAY = const(7)  # DAY_FORMAT
SETTING = const(8)  # SETTING_FORMAT, then the value as JSON: a change that did not come to be
CLOCK = const(9)  # CLOCK_FORMAT: the node's clock was set
RESULT = const(10)  # RESULT_FORMAT, then what it has to say: a command was obeyed

# Sources of a reading
MEANS = const(0)  # mean of each channel: there was no model to compute features
FEATURES = const(1)  # features of the model, those that settings name

# Who decided; the mode stands in the high four bits
BY_GATE = const(0)
BY_MAIN = const(1)
BY_LARGE = const(2)

# Reasons of an event. CLASS_CHANGED: detail is the new smoothed class, value the old one.
# MODE_CHANGED: detail is 16 times the old mode and the new one, value the reason in modes.py.
# UPDATE: a model package was refused, is on trial, was kept or was undone; its number (u32)
# follows, 0 if it came by cable.
# All others are faults: value 1 when one begins, 0 when it is over.
CLASS_CHANGED = const(1)
BAD_SETTINGS = const(2)  # detail: which setting, 0 the file as a whole
SENSOR_SILENT = const(3)  # detail: errno
MODEL_REFUSED = const(4)  # detail: node/model.py
UPLINK_FAILED = const(5)  # detail: errno, 0 no link
FLASH_FAILED = const(6)  # detail: errno
DEADLINE_MISSED = const(7)  # detail: the stage that had to be left out, or was cut short
STAGE_FAILED = const(8)  # detail: the stage that failed in a way nobody foresaw
MODE_CHANGED = const(9)
UPDATE = const(10)  # detail: node/verdict.py; value: low byte of the model's version

# What became of a change of settings
REFUSED = const(0)  # it breaks a rule, and the document with it
GATEWAY_LOST = const(1)  # to a later one that was made at the node
NODE_LOST = const(2)  # to a later one of the gateway
UNDONE = const(3)  # the document did not stand its trial; the value tells why: node/verdict.py

NO_CLASS = const(255)

# cause of this wake, faults as bits by reason, battery (mV), temperature (deg C), wakes, records
# waiting, records dropped, deadlines missed, median and 99th percentile of time awake (counters
# of node/latency.py), wakes by cause, mode, state of charge (%), days left, pace (s), mean power
# (uW)
STATE_FORMAT = "<BHHbIIIHBB5IBBHII"
COUNT_FORMAT = "<HI"  # wakes by motion, and the seconds it were
UPDATE_FORMAT = "<BBBI"  # UPDATE, and what the event is about
SETTING_FORMAT = "<BBI"  # what became of it, which setting (0: the document), its stamp
CLOCK_FORMAT = "<IiI"  # what it showed, by how much it was put forward, s since the last time
RESULT_FORMAT = "<HBB"  # number of the command, its code, 0 or why it failed: node/orders.py
DAY_FORMAT = "<I10III"  # which day, mJ by phase (node/energy.py), mJ left, bytes
PART = const(240)  # bytes of samples in one WINDOW
