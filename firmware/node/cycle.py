# One wake of the node, told top to bottom: why did I wake, sense, decide, remember, report, sleep.
# Whatever fails costs its own capability and becomes an event; every pass ends in sleep.

import sys
from array import array
from struct import pack

from micropython import const

from node import model, post, record
from node.board import EVENT, TIMER
from node.latency import AWAKE, BOOT, CAPTURE, INFER, POST, PRE, STORE, UPLINK
from node.outbox import ALERT, DIAGNOSTIC, Outbox
from node.outbox import EVENT as EVENTS
from node.settings import Settings
from node.state import State
from node.uplink.serial import Serial

_SETTINGS = "settings.json"
_MOST = const(0xFFFF)
_AFTER_A_BUG_MS = const(60000)

# What is broken when a stage raises OSError; the model's stages have no reason to.
_REASONS = (record.FLASH_FAILED, record.SENSOR_SILENT, record.STAGE_FAILED, record.STAGE_FAILED,
            record.STAGE_FAILED, record.FLASH_FAILED, record.UPLINK_FAILED)
# Faults that somebody should hear of at once.
_ALERTS = (record.BAD_SETTINGS, record.SENSOR_SILENT, record.MODEL_REFUSED, record.STAGE_FAILED)


def live(board):
    """Wake after wake; one, where deep sleep ends everything. Returns to the REPL if held."""
    if board.held():
        return
    try:
        while True:
            _live_once(board)
    except KeyboardInterrupt:
        board.stay()
        raise


def _live_once(board):
    try:
        Wake(board).live()
    except Exception as error:  # a bug: start again from flash alone, but not at once
        sys.print_exception(error)
        board.retain(b"")
        board.sleep(_AFTER_A_BUG_MS, False)


class Wake:
    def __init__(self, board):
        self.board = board
        self.settings = Settings(_SETTINGS)
        self.state = State()
        self.outbox = Outbox(board.flash(), board.random32, board.lanes())
        self.model = self.decision = self.reading = None
        self.alert = False
        self.seen = 0  # faults met in this wake, bits like state.faults

    def live(self):
        self._try(BOOT, self._remember)
        if self.settings.window and self._try(CAPTURE, self._capture):
            if self._try(PRE, self._compute) and self.model:
                if self._try(INFER, self._infer):
                    self._try(POST, self._smooth)
        self._try(STORE, self._store)
        if self.alert or self.board.now_s() >= self.state.uplink_s:
            self._try(UPLINK, self._report)
        self._sleep()

    # --- the stages ---

    def _remember(self):
        # Retained memory is whole only if the last thing done was to sleep.
        board, state = self.board, self.state
        clean = board.cause == TIMER or board.cause == EVENT
        blob = board.retained()
        saved = state.outbox(blob) if state.load(blob) else None
        try:
            self.outbox.mount(saved, clean)
        except Exception as error:  # what was retained misled it; the flash itself never does
            sys.print_exception(error)
            self.outbox.mount()
        state.wakes += 1
        state.causes[board.cause] += 1
        if not clean:
            state.verified = state.state_s = 0
        self._check(record.BAD_SETTINGS, self.settings.problem)
        if board.now_s() >= state.state_s:
            state.state_s = board.now_s() + self.settings.state_s
            self.outbox.put(DIAGNOSTIC, record.STATE, board.now_s(), self._condition())

    def _capture(self):
        settings = self.settings
        self.time_s = self.board.now_s()
        self.window = array("h", bytes(2 * settings.window * settings.channels))
        self.board.sensor(settings).capture(self.window)

    def _compute(self):
        spec, refused = self.settings.model, None
        try:
            self.model = model.load(spec, self.state.verified)
            self.features = array("h", bytes(2 * spec["features"]))
            self.model.features(self.window, self.features)
            chosen = self.settings.reading
            values = [self.features[i] for i in chosen if i < spec["features"]]
            self.reading = record.FEATURES, values
        except model.Refused as error:
            refused = error.args[0]
            self.reading = record.MEANS, self._means()
        self.state.verified = int(refused is None)
        self._check(record.MODEL_REFUSED, refused)

    def _infer(self):
        votes = bytearray(self.settings.model["classes"])
        self.decision = self.state.decision = self.model.predict(self.features, votes)
        self.outcome = self.state.smoothed
        self.state.share = votes[self.decision] * 255 // sum(votes)

    def _smooth(self):
        state = self.state
        post.remember(state.history, self.decision)
        self.outcome = post.vote(state.history, self.settings.post, state.smoothed)

    def _store(self):
        state = self.state
        if self.decision is not None and self.outcome != state.smoothed:
            self._event(EVENTS, record.CLASS_CHANGED, self.outcome, state.smoothed)
            state.smoothed = self.outcome
        if self.reading:
            source, values = self.reading
            self.outbox.gather(record.READING, self.time_s,
                               pack("<B%dh" % len(values), source, *values))
        if self.decision is not None:
            self.outbox.gather(record.DECISION, self.time_s,
                               bytes((self.decision, state.share, state.smoothed)))
        self.outbox.prepare()

    def _report(self):
        self.state.uplink_s = self.board.now_s() + self.settings.uplink_s
        self.outbox.flush()
        link = self.board.link()
        if link is None:
            raise OSError(0)
        try:
            Serial(link).drain(self.outbox, self.board.node_id, self._late)
        finally:
            link.close()

    def _sleep(self):
        board, state, wake_s = self.board, self.state, self.settings.wake_s
        for reason in (record.DEADLINE_MISSED, record.STAGE_FAILED):
            if not self.seen >> reason & 1:
                self._check(reason, None)
        state.latency.end()
        state.depth = self.outbox.depth()
        board.retain(state.save(self.outbox))
        board.sleep((wake_s - board.now_s() % wake_s) * 1000, self.settings.listen)

    # --- how stages fail ---

    def _try(self, stage, action):
        """Run one stage, unless it is too late for it; True if it did its work."""
        if stage != STORE and self._late():
            self.state.misses = min(self.state.misses + 1, _MOST)
            self._check(record.DEADLINE_MISSED, stage)
            return False
        done = False
        try:
            action()
            done = True
            if _REASONS[stage] != record.STAGE_FAILED:
                self._check(_REASONS[stage], None)
        except OSError as error:
            number = error.errno
            self._check(_REASONS[stage], number & 255 if isinstance(number, int) else 255)
        except Exception as error:
            sys.print_exception(error)
            self._check(record.STAGE_FAILED, stage)
        self.state.latency.lap(stage, self.board.lap(stage))
        self.board.feed()
        return done

    def _late(self):
        return self.board.ticks_us() >= self.settings.awake_ms * 1000

    def _check(self, reason, detail):
        """A fault is an event when it begins (`detail` says which) and when it is over (None)."""
        bit = 1 << reason
        lane = ALERT if reason in _ALERTS else EVENTS
        if detail is None:
            if self.state.faults & bit:
                self.state.faults &= ~bit
                self._event(lane, reason, 0, 0)
            return
        self.seen |= bit
        if not self.state.faults & bit:
            self.state.faults |= bit
            self._event(lane, reason, detail, 1)

    def _event(self, lane, reason, detail, value):
        self.alert = self.alert or lane == ALERT
        try:
            self.outbox.put(lane, record.EVENT, self.board.now_s(), bytes((reason, detail, value)))
        except OSError:
            self.state.faults |= 1 << record.FLASH_FAILED

    # --- summaries ---

    def _means(self):
        window, channels = self.window, self.settings.channels
        means = []
        for channel in range(min(channels, 16)):
            total = 0
            for i in range(channel, len(window), channels):
                total += window[i]
            means.append(total // self.settings.window)
        return means

    def _condition(self):
        board, state = self.board, self.state
        bits = state.latency.bits
        return pack(record.STATE_FORMAT, board.cause, state.faults, board.battery_mv(),
                    board.temperature_c(), state.wakes, self.outbox.depth(),
                    self.outbox.dropped(), state.misses, bits(AWAKE, 50), bits(AWAKE, 99),
                    *state.causes)
