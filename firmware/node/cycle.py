# One wake of the node, told top to bottom: why did I wake, sense, decide, remember, report, sleep.
# Whatever fails costs its own capability and becomes an event; every pass ends in sleep.

import sys
from array import array
from struct import pack

from micropython import const

from node import model, post, record, schedule, settings
from node.board import EVENT, TIMER, WATCHDOG, Late
from node.latency import BOOT, CAPTURE, INFER, POST, PRE, STORE, UPLINK
from node.modes import ALLOWED, CASCADE, COUNT, CRITICAL, MAIN, NONE, SAFE
from node.outbox import ALERT, DIAGNOSTIC, Outbox
from node.outbox import EVENT as EVENTS
from node.state import State

_SETTINGS = "settings.json"
_MOST = const(0xFFFF)
_AFTER_A_BUG_MS = const(60000)
_AT_ONCE_MS = const(1000)
_WINDOWS = const(8)  # sent up at most between two uplinks

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
    state = State()
    try:
        Wake(board, state).live()
    except Exception as error:  # a bug: start again from flash alone, later each time
        sys.print_exception(error)
        state.failed = min(state.failed + 1, 255)
        board.retain(state.remains())
        board.sleep(_AFTER_A_BUG_MS << min(state.failed - 1, 6), False)


class Wake:
    def __init__(self, board, state):
        blob = board.retained()
        self.board, self.state = board, state
        self.saved = state.outbox(blob) if state.load(blob) else None
        self.settings = settings.current(_SETTINGS)
        state.energy.power, state.energy.battery = board.power, board.battery
        board.limit_us = self.settings.awake_ms * 1000
        self.outbox = Outbox(board.flash(), board.random32, board.lanes())
        self.model = self.decision = self.reading = self.window = None
        self.by = record.BY_GATE
        self.outcome = state.smoothed
        self.alert = self.unsure = self.reported = False
        self.seen = 0  # faults met in this wake, bits like state.faults
        self.spent = (0, 0, 0)  # of this wake dozing, on flash, with the radio on, until the lap

    def live(self):
        self._try(BOOT, self._remember)
        self.tier, _, _, self.at_once = ALLOWED[self.state.modes.mode]
        if self.tier == COUNT and self.board.cause == EVENT:
            self.state.motions = min(self.state.motions + 1, _MOST)
        if self.tier >= MAIN and self.settings.window and self._try(CAPTURE, self._capture):
            if self.decision is None and self._try(PRE, self._compute) and self.model:
                self._try(INFER, self._infer)
            if self.decision is not None:
                self._try(POST, self._smooth)
        self._try(STORE, self._store)
        if self._may_report():
            self._try(UPLINK, self._report)
        self._sleep()

    # --- the stages ---

    def _remember(self):
        # Retained memory is whole only if the last thing done was to sleep.
        board, state, now_s = self.board, self.state, self.board.now_s()
        clean = board.cause == TIMER or board.cause == EVENT
        try:
            self.outbox.mount(self.saved, clean)
        except Exception as error:  # what was retained misled it; the flash itself never does
            sys.print_exception(error)
            self.outbox.mount()
        state.wakes += 1
        state.carried = 0
        state.causes[board.cause] += 1
        if not clean:
            state.verified = state.state_s = 0
        if self.settings.trial and board.cause == WATCHDOG:
            from node import trial, verdict

            trial.undo(self, verdict.CRASHED)
        self._look(now_s)
        self._check(record.BAD_SETTINGS, self.settings.problem)

    def _look(self, now_s):
        # How do things stand, and what follows for the mode?
        board, state, energy = self.board, self.state, self.state.energy
        energy.arrive(now_s, board.battery_mv(), self.settings, state.modes.mode >= CRITICAL)
        before = state.modes.step(
            (state.unlinked, state.unflashed, energy.afford, energy.soc(), board.temperature_c(),
             state.failed + board.resets, state.safe), self.settings, now_s)
        if before is not None:
            mode = state.modes.mode
            lane = ALERT if mode >= CRITICAL else EVENTS
            state.motions, state.counted_s = 0, now_s
            self.event(lane, record.MODE_CHANGED, before << 4 | mode, state.modes.reason)
        day = energy.new_day(now_s)
        if day:
            from node import summary

            self.outbox.put(DIAGNOSTIC, record.DAY, now_s, summary.day(energy, *day, state.spent))
            state.spent = 0

    def _capture(self):
        settings, state = self.settings, self.state
        self.time_s = self.board.now_s()
        window = array("h", bytes(2 * settings.window * settings.channels))
        sensor, spec = self.board.sensor(settings), settings.gate
        if spec:
            from node.gate import quiet

            rows = sensor.capture(window, spec["samples"],
                                  lambda: quiet(window, settings.channels, spec))
            if rows < settings.window:
                self.decision = state.decision = spec["class"]
                state.share = 255
        else:
            sensor.capture(window)
        self.window = window

    def _compute(self):
        refused = None
        try:
            self._load()
            features = array("h", bytes(2 * self.spec["features"]))
            self.model.features(self.window, features)
            self.features = features
            self.reading = self.by, [features[i] for i in self.settings.reading
                                     if i < len(features)]
        except model.Refused as error:
            refused = error.args[0]
            from node import summary

            self.reading = record.MEANS, summary.means(self.window, self.settings.channels)
        self._check(record.MODEL_REFUSED, refused)

    def _load(self):
        # The larger model is for when there is no heavy one to ask.
        settings, self.by = self.settings, record.BY_MAIN
        self.spec = settings.model
        if self.tier == MAIN and settings.large:
            self.by, self.spec = record.BY_LARGE, settings.large
        checked = 1 << self.by
        verified, self.state.verified = self.state.verified, self.state.verified & ~checked
        self.model = model.load(self.spec, verified & checked)
        self.state.verified |= checked

    def _infer(self):
        votes = bytearray(self.spec["classes"])
        decision = self.model.predict(self.features, votes)
        total, most = sum(votes), votes[decision]
        self.decision = self.state.decision = decision
        self.state.share = most * 255 // total
        votes[decision] = 0
        self.unsure = (most - max(votes)) * 255 // total < self.settings.unsure

    def _smooth(self):
        state = self.state
        post.remember(state.history, self.decision)
        self.outcome = post.vote(state.history, self.settings.post, state.smoothed)

    def _store(self):
        state = self.state
        if self.decision is not None and self.outcome != state.smoothed:
            self.event(EVENTS, record.CLASS_CHANGED, self.outcome, state.smoothed)
            state.smoothed = self.outcome
        if self.reading:
            source, values = self.reading
            self.outbox.gather(record.READING, self.time_s,
                               pack("<B%dh" % len(values), source, *values))
        if self.decision is not None:
            self.outbox.gather(record.DECISION, self.time_s,
                               bytes((self.decision, state.share, state.smoothed,
                                      self.by | state.modes.mode << 4)))
        if self.unsure and self.tier == CASCADE and state.windows < _WINDOWS:
            state.windows += 1
            self._keep_window()
        if self.tier == COUNT and self.board.cause != EVENT:
            self._count()
        if self.at_once:
            self.outbox.flush()
        self._tell_state()
        self.outbox.prepare()
        if state.package and not self._late():
            from node import fetch

            fetch.install(self)

    def _tell_state(self):
        state, now_s = self.state, self.board.now_s()
        if now_s < state.state_s:
            return
        state.state_s = now_s + self.settings.state_s
        from node import summary

        self.outbox.put(DIAGNOSTIC, record.STATE, now_s,
                        summary.state(self.board, state, self.outbox))

    def _keep_window(self):
        from node import summary

        for payload in summary.parts(self.window):
            self.outbox.put(DIAGNOSTIC, record.WINDOW, self.time_s, payload)

    def _count(self):
        state, now_s = self.state, self.board.now_s()
        if not state.motions and now_s < state.counted_s + self.settings.state_s:
            return
        self.outbox.gather(record.COUNT, now_s, pack(
            record.COUNT_FORMAT, state.motions, now_s - state.counted_s))
        state.motions, state.counted_s = 0, now_s

    def _report(self):
        # It has failed until it is known to have succeeded.
        board, state, outbox = self.board, self.state, self.outbox
        state.unlinked = min(state.unlinked + 1, 255)
        state.uplink_s = board.now_s() + schedule.backoff_s(
            state, self.settings, outbox.waits(ALERT), board.random32())
        outbox.flush()
        waiting = outbox.depth()
        try:
            self._send()
            state.uplink_s = board.now_s() + schedule.uplink_s(state, self.settings)
            state.unlinked = 0
            self.reported = True
        finally:
            if outbox.depth() < waiting:  # it was cut short, but there is a link
                state.unlinked = state.windows = 0

    def _send(self):
        link = self.board.link()
        if link is None:
            raise OSError(0)
        from node.uplink.session import Session  # most wakes can do without
        try:
            Session(self.board, self.settings, self.state, self.outbox, link).hold()
        finally:
            link.close()
            self.state.carried = link.carried
            self.state.spent += link.carried

    def _sleep(self):
        board, state, settings = self.board, self.state, self.settings
        for reason in (record.DEADLINE_MISSED, record.STAGE_FAILED):
            if not self.seen >> reason & 1:
                self._check(reason, None)
        if settings.trial:
            from node import trial

            trial.judge(self)
        state.unflashed = self._row(state.unflashed, record.FLASH_FAILED)
        state.failed = self._row(state.failed, record.STAGE_FAILED)
        listens = settings.listen and self.tier != NONE and state.energy.may_listen()
        state.energy.depart(state.latency.end(), self.window is not None,
                            board.cause == EVENT, listens)
        now_s = board.now_s()
        until_s = schedule.timer_s(state, settings, now_s)
        state.depth = self.outbox.depth()
        if state.reset:
            self._reset()
        board.retain(state.save(self.outbox))
        board.sleep((until_s - now_s) * 1000, listens)

    def _reset(self):
        # A chip that sleeps begins anew; so that the node does too, it forgets all it can.
        try:
            self.outbox.flush()
        except OSError as error:
            sys.print_exception(error)
        self.board.retain(self.state.remains())
        self.board.sleep(_AT_ONCE_MS, False)

    # --- when ---

    def _may_report(self):
        board, state, settings = self.board, self.state, self.settings
        if board.resets and state.modes.mode == SAFE:  # the uplink may be what hangs
            state.uplink_s = board.now_s() + settings.uplink_most_s
            return False
        return schedule.is_due(state, settings, board.now_s(), self.outbox.waits(ALERT),
                               self.alert, board.random32())

    # --- how stages fail ---

    def _try(self, stage, action):
        """Run one stage, unless it is too late for it; True if it did its work."""
        board, state = self.board, self.state
        if stage != STORE and self._late():
            self._miss(stage)
            return False
        # What is being stored is stored to its end.
        board.limit_us = 0 if stage == STORE else self.settings.awake_ms * 1000
        board.phase(stage, 1)
        done = False
        try:
            action()
            done = True
            if _REASONS[stage] != record.STAGE_FAILED:
                self._check(_REASONS[stage], None)
        except Late:
            self._miss(stage)
        except OSError as error:
            number = error.errno
            self._check(_REASONS[stage], number & 255 if isinstance(number, int) else 255)
        except Exception as error:
            sys.print_exception(error)
            self._check(record.STAGE_FAILED, stage)
        took_us = state.latency.lap(stage, board.lap(stage))
        board.phase(stage, 0)
        doze_us, flash_us, radio_us = self.spent
        state.energy.charge(stage, took_us, board.doze_us - doze_us, board.flash_us - flash_us,
                            board.radio_us - radio_us)
        self.spent = board.doze_us, board.flash_us, board.radio_us
        board.feed()
        return done

    def _late(self):
        return self.board.ticks_us() >= self.settings.awake_ms * 1000

    def _miss(self, stage):
        self.state.misses = min(self.state.misses + 1, _MOST)
        self._check(record.DEADLINE_MISSED, stage)

    def _row(self, count, reason):
        """How many wakes in a row have met a fault, this one included."""
        return min(count + 1, 255) if self.seen >> reason & 1 else 0

    def _check(self, reason, detail):
        """A fault is an event when it begins (`detail` says which) and when it is over (None)."""
        bit = 1 << reason
        lane = ALERT if reason in _ALERTS else EVENTS
        if detail is None:
            if self.state.faults & bit:
                self.state.faults &= ~bit
                self.event(lane, reason, 0, 0)
            return
        self.seen |= bit
        if not self.state.faults & bit:
            self.state.faults |= bit
            self.event(lane, reason, detail, 1)

    def event(self, lane, reason, detail, value):
        self.tell(lane, record.EVENT, bytes((reason, detail, value)))

    def tell(self, lane, kind, payload):
        self.alert = self.alert or lane == ALERT
        try:
            self.outbox.put(lane, kind, self.board.now_s(), payload)
        except OSError:
            self.seen |= 1 << record.FLASH_FAILED
            self.state.faults |= 1 << record.FLASH_FAILED
