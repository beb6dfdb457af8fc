// The LSM6DSOX accelerometer and gyroscope as its I2C bus and INT1 pin show it.
// Registers: ST DS12814 (LSM6DSOX datasheet) and ST's BSD driver lsm6dsox_reg.h.

const ADDRESS = 0x6a;
const REG = {
  FIFO_CTRL1: 0x07, FIFO_CTRL2: 0x08, FIFO_CTRL3: 0x09, FIFO_CTRL4: 0x0a, INT1_CTRL: 0x0d,
  WHO_AM_I: 0x0f, CTRL1_XL: 0x10, CTRL2_G: 0x11, CTRL3_C: 0x12, CTRL5_C: 0x14,
  WAKE_UP_SRC: 0x1b, STATUS: 0x1e, OUT_TEMP: 0x20, OUT_G: 0x22, OUT_XL: 0x28,
  FIFO_STATUS1: 0x3a, FIFO_STATUS2: 0x3b, TAP_CFG0: 0x56, TAP_CFG2: 0x58,
  WAKE_UP_THS: 0x5b, WAKE_UP_DUR: 0x5c, MD1_CFG: 0x5e, FIFO_TAG: 0x78, FIFO_LAST: 0x7e,
};
const READ_ONLY = new Set([REG.WHO_AM_I, REG.WAKE_UP_SRC, REG.STATUS, REG.FIFO_STATUS1,
                           REG.FIFO_STATUS2]);
const ODR_HZ = [0, 12.5, 26, 52, 104, 208, 416, 833, 1667, 3333, 6667, 1.6];
const RANGE_G = [2, 16, 4, 8];
const RANGE_DPS = [250, 500, 1000, 2000];
const MG_PER_G_LSB = 1000 / 0.061; // counts of 1 g at ±2 g (0.061 mg a count)
const MDPS_PER_DPS = 4.375 / 125; // mdps a count and dps of range
const FIFO_WORDS = 512; // 3 kB of 6-byte words
const TAG_GYRO = 1;
const TAG_XL = 2;
const NANOS = 1e9;
const IC_DATA_CMD = 0x10;
const IC_RXFLR = 0x78;
const IC_FS_SPKLEN = 0xa0;
const TX_EMPTY = 1 << 4;
const TX_ABRT = 1 << 6;

const NOISE_G = 0.002; // at rest, peak; about three times DS12814's RMS noise at +-4 g
const NOISE_DPS = 0.3;

/** Noise of one axis at one time, -1…1: the same whenever it is asked for. */
function noise(ns, axis) {
  let h = Math.imul(Math.floor(ns / 1000) % 0x7fffffff ^ (axis * 0x9e3779b1), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 0x80000000 - 1;
}

const clamp = (value) => Math.max(-32768, Math.min(32767, Math.round(value)));

export class LSM6DSOX {
  /** `now()` is the time in ns that never jumps back; `setPin(level)` drives INT1. */
  constructor(now, setPin) {
    this.now = now;
    this.setPin = setPin;
    this.recordings = []; // in order of time: {start_ns, end_ns, rate_hz, data: Int16Array, channels, range_g, range_dps}
    this.delivered = []; // windows read from the FIFO, for whoever checks the node's decisions
    this.silent = false; // an unplugged sensor answers nothing
    this.stuck = 0; // self-test fault: the part of the response that's missing, 0…1
    this.powerOn();
  }

  powerOn() {
    this.registers = new Uint8Array(256);
    this.reset();
  }

  reset() {
    this.registers.fill(0);
    this.registers[REG.WHO_AM_I] = 0x6c;
    this.registers[REG.CTRL3_C] = 0x04;
    this.fifo = [];
    this.tagCount = 0;
    this.overrun = false;
    this.wakeSource = 0;
    this.above = 0;
    this.previous = null;
    this.tick = null; // index of the next sample, counted from `base_ns`
    this.base_ns = 0;
    this.setPin(0);
  }

  get rate_hz() {
    const xl = ODR_HZ[this.registers[REG.CTRL1_XL] >> 4] ?? 0;
    const gyro = ODR_HZ[this.registers[REG.CTRL2_G] >> 4] ?? 0;
    return Math.max(xl, gyro);
  }

  get range_g() {
    return RANGE_G[(this.registers[REG.CTRL1_XL] >> 2) & 3];
  }

  get range_dps() {
    const value = this.registers[REG.CTRL2_G];
    return value & 2 ? 125 : RANGE_DPS[(value >> 2) & 3];
  }

  /** Physical values [g, g, g, dps, dps, dps] at `ns`: a recording's, or lying flat with noise. */
  physical(ns) {
    const recording = this.recordings.find((r) => ns >= r.start_ns && ns < r.end_ns);
    if (!recording) {
      return [0, 0, 1, 0, 0, 0].map((value, axis) => value
        + (axis < 3 ? NOISE_G : NOISE_DPS) * noise(ns, axis));
    }
    const { data, channels, rate_hz } = recording;
    const rows = data.length / channels;
    const row = Math.floor(((ns - recording.start_ns) / NANOS) * rate_hz + 1e-6) % rows;
    const value = [0, 0, 0, 0, 0, 0];
    for (let i = 0; i < Math.min(6, channels); i++) {
      const counts = data[row * channels + i];
      value[i] = i < 3 ? (counts / MG_PER_G_LSB) * (recording.range_g / 2)
        : (counts * MDPS_PER_DPS * recording.range_dps) / 1000;
    }
    return value;
  }

  /** One sample in counts of the ranges now set, self-test deflection included. */
  sample(ns) {
    const value = this.physical(ns);
    const test = this.registers[REG.CTRL5_C];
    const sign = [0, 1, -1, 0];
    const xl = sign[test & 3] * 0.4 * (1 - this.stuck); // g; DS12814 allows 50…1700 mg
    const gyro = [0, 1, 0, -1][(test >> 2) & 3] * (this.range_dps === 2000 ? 400 : 50)
      * (1 - this.stuck); // dps; DS12814: 150…700 at ±2000 dps, 20…80 at ±250 dps
    return value.map((v, i) => (i < 3 ? clamp(((v + xl) * MG_PER_G_LSB * 2) / this.range_g)
      : clamp(((v + gyro) * 1000) / (MDPS_PER_DPS * this.range_dps))));
  }

  /** Live through every sample since the last look: fill the FIFO, watch for the wake-up event. */
  catchUp() {
    const rate = this.rate_hz;
    if (!rate) return;
    const step = NANOS / rate;
    const due = Math.floor((this.now() - this.base_ns) / step);
    while (this.tick <= due) {
      const ns = this.base_ns + this.tick * step;
      while (this.recordings.length && this.recordings[0].end_ns <= ns) this.recordings.shift();
      const quiet = Math.min(due, (this.recordings[0]?.start_ns ?? Infinity) / step
        - this.base_ns / step) - 2 * FIFO_WORDS;
      if (quiet > this.tick + 1 && !this.filling()) { // at rest: only what's in the FIFO matters
        this.tick = Math.floor(quiet);
        continue;
      }
      this.take(ns);
      this.tick++;
    }
  }

  /** Whether the FIFO stops when full and isn't full yet, so that every sample counts. */
  filling() {
    return (this.registers[REG.FIFO_CTRL4] & 7) === 1 && this.fifo.length < FIFO_WORDS;
  }

  take(ns) {
    const counts = this.sample(ns);
    this.latest = counts;
    const mode = this.registers[REG.FIFO_CTRL4] & 7;
    if (mode) {
      if (this.registers[REG.FIFO_CTRL3] >> 4 && this.registers[REG.CTRL2_G] >> 4) this.push(TAG_GYRO, counts.slice(3), mode);
      if (this.registers[REG.FIFO_CTRL3] & 15 && this.registers[REG.CTRL1_XL] >> 4) this.push(TAG_XL, counts.slice(0, 3), mode);
      this.tagCount = (this.tagCount + 1) & 3;
    }
    this.detect(counts);
  }

  push(tag, axes, mode) {
    if (this.fifo.length >= FIFO_WORDS) {
      this.overrun = true;
      if (mode === 1) return; // FIFO mode: full means stop
      this.fifo.shift(); // continuous mode: the oldest goes
    }
    this.fifo.push([tag, this.tagCount, ...axes]);
  }

  /** Wake-up: the slope (a[n] − a[n−1]) / 2 of an axis above the threshold for WAKE_DUR samples. */
  detect(counts) {
    const r = this.registers;
    const before = this.previous;
    this.previous = counts;
    if (!(r[REG.TAP_CFG2] & 0x80) || !before) return;
    const step = 32768 / (r[REG.WAKE_UP_DUR] & 0x10 ? 256 : 64);
    const threshold = (r[REG.WAKE_UP_THS] & 0x3f) * step;
    let axes = 0;
    for (let i = 0; i < 3; i++) {
      if (Math.abs(counts[i] - before[i]) / 2 > threshold) axes |= 4 >> i;
    }
    this.above = axes ? this.above + 1 : 0;
    if (this.above > ((r[REG.WAKE_UP_DUR] >> 5) & 3)) {
      this.wakeSource = 0x08 | axes;
      if (r[REG.MD1_CFG] & 0x20) this.setPin(1);
    } else if (!(r[REG.TAP_CFG0] & 1)) {
      this.wakeSource = 0;
      this.setPin(0);
    }
  }

  read(register) {
    this.catchUp();
    const r = this.registers;
    if (register >= REG.FIFO_TAG && register <= REG.FIFO_LAST) return this.readFifo(register);
    if (register >= REG.OUT_G && register < REG.OUT_XL + 6) {
      const axis = (register - REG.OUT_G) >> 1;
      const value = (this.latest ?? [0, 0, 0, 0, 0, 0])[(axis + 3) % 6];
      return (register & 1 ? value >> 8 : value) & 0xff;
    }
    switch (register) {
      case REG.WAKE_UP_SRC: {
        const value = this.wakeSource;
        if (r[REG.TAP_CFG0] & 1) { // latched: reading clears
          this.wakeSource = 0;
          this.setPin(0);
        }
        return value;
      }
      case REG.STATUS:
        return this.rate_hz ? 7 : 0;
      case REG.FIFO_STATUS1:
        return this.fifo.length & 0xff;
      case REG.FIFO_STATUS2: {
        const mark = r[REG.FIFO_CTRL1] | ((r[REG.FIFO_CTRL2] & 1) << 8);
        const value = ((this.fifo.length >> 8) & 3) | (mark && this.fifo.length >= mark ? 0x80 : 0)
          | (this.fifo.length >= FIFO_WORDS ? 0x20 : 0) | (this.overrun ? 0x48 : 0);
        this.overrun = false;
        return value;
      }
      default:
        return r[register];
    }
  }

  readFifo(register) {
    const word = this.fifo[0];
    if (!word) return 0;
    if (register === REG.FIFO_TAG) {
      const byte = (word[0] << 3) | (word[1] << 1);
      let parity = 0;
      for (let b = byte; b; b >>= 1) parity ^= b & 1;
      return byte | parity;
    }
    const value = word[2 + ((register - REG.FIFO_TAG - 1) >> 1)];
    if (register === REG.FIFO_LAST) {
      this.fifo.shift();
      this.delivered.at(-1)?.words.push([word[0], word[2], word[3], word[4]]);
    }
    return ((register - REG.FIFO_TAG - 1) & 1 ? value >> 8 : value) & 0xff;
  }

  write(register, value) {
    this.catchUp();
    if (READ_ONLY.has(register)) return;
    if (register === REG.CTRL3_C && value & 1) { // SW_RESET
      this.reset();
      return;
    }
    const rate = this.rate_hz;
    this.registers[register] = value;
    if (this.rate_hz !== rate) { // a new data rate starts its own clock
      this.base_ns = this.now();
      this.tick = 1;
      this.previous = null;
    }
    if (register === REG.FIFO_CTRL4) {
      if ((value & 7) === 0) {
        this.fifo = [];
        this.overrun = false;
      } else {
        this.delivered.push({ start_ns: this.now(), words: [] });
      }
    }
  }

  /** When INT1 could rise next, ns; Infinity while nothing is moving or nobody asked. */
  nextEvent() {
    if (!(this.registers[REG.TAP_CFG2] & 0x80) || !this.rate_hz) return Infinity;
    const step = NANOS / this.rate_hz;
    const next = this.base_ns + this.tick * step;
    const moving = this.recordings.find((r) => r.end_ns + 2 * step > next);
    return moving ? Math.max(next, moving.start_ns) : Infinity;
  }

  /**
   * Serve one I2C controller of the chip; a byte takes its nine bit times. `stall(ns)` lets the core
   * stand still: in place of asking two hundred times whether a byte has come.
   */
  attach(i2c, rp2040, stall) {
    const alarm = rp2040.clock.createAlarm(() => this.then());
    let spikes = 7; // the register's value after a reset
    const after = (bits, then) => {
      this.then = then;
      // RP2040 datasheet, 4.3.14.1: low lasts a cycle longer than its count says, high by the spike
      // filter and seven
      const cycles = bits * (i2c.sclHighPeriod + spikes + 7 + i2c.sclLowPeriod + 1);
      alarm.schedule((cycles * NANOS) / rp2040.clkSys);
    };
    // An abort empties the transmit FIFO, says so, and lets nothing in until it has been cleared
    // (RP2040 datasheet, 4.3.5); rp2040js would send what still comes as a transfer of its own.
    const abort = i2c.abort.bind(i2c);
    i2c.abort = (reason) => {
      abort(reason);
      i2c.setInterrupts(TX_EMPTY);
    };
    const write = i2c.writeUint32.bind(i2c);
    i2c.writeUint32 = (offset, value) => {
      if (offset === IC_FS_SPKLEN) spikes = value & 0xff;
      if (offset !== IC_DATA_CMD || !(i2c.intRaw & TX_ABRT)) write(offset, value);
    };
    const read = i2c.readUint32.bind(i2c);
    i2c.readUint32 = (offset) => {
      const value = read(offset);
      if (offset === IC_RXFLR && !value && alarm.scheduled) {
        stall(Math.max(0, alarm.nanos - rp2040.clock.nanos));
      }
      return value;
    };
    let selected = false;
    let pointer = null;
    i2c.onStart = () => after(1, () => i2c.completeStart());
    i2c.onConnect = (address, mode) => {
      selected = address === ADDRESS && !this.silent;
      if (mode === 0) pointer = null;
      after(9, () => i2c.completeConnect(selected));
    };
    i2c.onWriteByte = (value) => {
      if (pointer === null) {
        pointer = value;
      } else {
        this.write(pointer, value);
        pointer = this.following(pointer);
      }
      after(9, () => i2c.completeWrite(true));
    };
    i2c.onReadByte = () => {
      const value = this.read(pointer);
      pointer = this.following(pointer);
      after(9, () => i2c.completeRead(value));
    };
    i2c.onStop = () => after(1, () => i2c.completeStop());
  }

  /** Register after `pointer`: with IF_INC on, FIFO reads go round and round its seven bytes. */
  following(pointer) {
    if (!(this.registers[REG.CTRL3_C] & 4)) return pointer;
    return pointer === REG.FIFO_LAST ? REG.FIFO_TAG : (pointer + 1) & 0xff;
  }
}
