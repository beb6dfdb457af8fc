// An RP2040 board around rp2040js: what the emulator lacks for living through resets, flash
// operations and power cuts, and the parts soldered beside the chip.

import { pathToFileURL } from 'node:url';

import { LSM6DSOX } from './lsm6dsox.mjs';

const library = (file) => import(
  pathToFileURL(`${process.env.OUTPOST_RP2040JS}/dist/esm/${file}.js`).href);
const { ConsoleLogger, LogLevel, RP2040, USBCDC } = await library('index');
const { SimulationClock } = await library('clock/simulation-clock');

export const FLASH_BYTES = 2 * 1024 * 1024; // the Pico's W25Q16JV
const PAGE = 256;
const SECTOR = 4096;
// W25Q16JV datasheet, AC characteristics, typical: page program 0.4 ms, sector erase 45 ms.
const PROGRAM_NS = 0.4e6;
const ERASE_NS = 45e6;
const RAM_BYTES = 264 * 1024;
const ADC_FULL = 4095;
const ADC_REFERENCE_MV = 3300;
const SLEEPDEEP = 4;
// RP2040 datasheet, 2.15.3: what clk_sys may be at the core's voltage; pico-sdk gives the regulator
// a millisecond.
const CLK_SYS_HZ = { default: 133e6, raised: 200e6 };
const VSEL = { default: 11, raised: 12 }; // 1.10 V, 1.15 V
const VREG_ON = 1;
const VREG_NS = 1e6;

/** Small fast generator (mulberry32), so that a seed names one torn write for ever. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

class PowerLost extends Error {}

/** rp2040js's clock, counting the core's cycles instead of adding up time at each instruction. */
class CycleClock extends SimulationClock {
  constructor() {
    super();
    this.core = { cycles: 0 };
    this.cycleNs = 8;
    this.base = 0; // time at cycle `mark`
    this.mark = 0;
    this.limit = Infinity; // when whoever runs the clock wants it back
    this.due = Infinity; // the cycle at which an alarm or the limit is reached
    this.firing = null; // while an alarm's callback runs: its time
  }

  get nanos() {
    return this.firing ?? this.base + (this.core.cycles - this.mark) * this.cycleNs;
  }

  /** Let `ns` go by without cycles, at `cycleNs` a cycle from then on. */
  skip(ns, cycleNs = this.cycleNs) {
    this.base += (this.core.cycles - this.mark) * this.cycleNs + ns;
    this.mark = this.core.cycles;
    this.cycleNs = cycleNs;
    this.plan();
  }

  plan() {
    const next = Math.min(this.nextAlarm ? this.nextAlarm.nanos : Infinity, this.limit);
    this.due = this.mark + (next - this.base) / this.cycleNs;
  }

  linkAlarm(nanos, alarm) {
    super.linkAlarm(nanos, alarm);
    if (this.nextAlarm === alarm) this.plan();
    return alarm;
  }

  unlinkAlarm(alarm) {
    const first = this.nextAlarm === alarm;
    const found = super.unlinkAlarm(alarm);
    if (first) this.plan();
    return found;
  }

  /** Run the callbacks of all alarms that are due. */
  fire() {
    const now = this.nanos;
    for (let alarm = this.nextAlarm; alarm && alarm.nanos <= now; alarm = this.nextAlarm) {
      this.nextAlarm = alarm.next;
      this.firing = alarm.nanos;
      alarm.callback();
      this.firing = null;
    }
    this.plan();
  }
}

export class Board {
  constructor(bootrom, { usb = true, pins = {} } = {}) {
    this.bootrom = bootrom;
    this.usb = usb;
    this.pins = { event: 6, i2c: 0, uart: 0, ...pins };
    this.flash = new Uint8Array(FLASH_BYTES).fill(0xff);
    this.origin_ns = 0; // when this chip instance began, on the time line that never jumps
    this.levels = new Map([[24, usb]]); // pins driven from outside; 24 senses VBUS on a Pico
    this.battery_mv = 4000;
    this.celsius = 25;
    this.instructions = 0;
    this.sleep_ns = 0; // of which in lightsleep (SLEEPDEEP set)
    this.idle_ns = 0; // waiting for an event, clocks running
    this.operations = 0; // flash operations: page programs and sector erases
    this.resets = 0;
    this.cut = null; // {at, keep, seed}: the operation that power is lost in
    this.log = false; // keep a line for each flash operation
    this.operationLog = [];
    this.noise = random(0x6e6f6465); // what the ring oscillator's random bit gives
    this.hung = false; // the program stands still as soon as a watchdog could bite
    this.usbOut = [];
    this.uartOut = [];
    this.uartIn = [];
    this.halt = null; // why the run loop must return
    this.on = false;
    this.sensor = new LSM6DSOX(() => this.now(), (level) => this.setPin(this.pins.event, level));
  }

  now() {
    return this.origin_ns + (this.chip ? this.chip.clock.nanos : 0);
  }

  /** Power up: cold boot of everything. */
  powerOn() {
    this.sensor.powerOn();
    this.vsel = VSEL.default;
    this.vselAt = this.now();
    this.boot([], 0);
  }

  powerOff() {
    this.origin_ns = this.now();
    this.chip = null;
    this.on = false;
  }

  /** Let `ns` go by without power. */
  rest(ns) {
    this.origin_ns += ns;
  }

  boot(scratch, reason) {
    this.origin_ns = this.now();
    const clock = new CycleClock();
    const chip = new RP2040(clock);
    this.chip = chip;
    this.on = true;
    chip.logger = new ConsoleLogger(LogLevel.Error, false);
    chip.bootrom.set(this.bootrom);
    chip.core.reset();
    chip.flash.set(this.flash);
    this.hookMemory(chip);
    this.hookFlash(chip);
    this.hookCore(chip);
    this.hookWatchdog(chip, scratch, reason);
    this.hookRegulator(chip);
    chip.peripherals[0x40060].readUint32 = (offset) => ( // ROSC: RANDOMBIT, else STATUS
      offset === 0x1c ? +(this.noise() < 0.5) : 0x81001000);
    this.hung = false;
    if (this.usb) this.hookUsb(chip);
    this.hookUart(chip.uart[this.pins.uart]);
    this.sensor.attach(chip.i2c[this.pins.i2c], chip, (ns) => { this.stall += ns; });
    chip.adc.onADCRead = (channel) => {
      chip.adc.channelValues[channel] = this.analog(channel);
      chip.adc.currentChannel = channel;
      chip.adc.sampleAlarm.schedule(chip.adc.sampleTime * 1000);
    };
    this.eventAlarm = chip.clock.createAlarm(() => {
      this.sensor.catchUp();
      this.armSensor();
    });
    for (const pin of chip.gpio) { // what nobody drives is where its pull resistor pulls it
      Object.defineProperty(pin, 'rawInputValue', {
        get: () => !!(this.levels.get(pin.index) ?? pin.pullupEnabled), set: () => {} });
    }
    for (const [pin, level] of this.levels) chip.gpio[pin].setInputValue(!!level);
    chip.core.PC = 0x10000000; // the image's second boot stage; the bootrom's own is skipped
    clock.core = chip.core;
    chip.updateClocks(); // the ring oscillator's, until the firmware has set others
    clock.skip(0, 1e9 / chip.clkSys);
    chip.addClockListener((hertz) => {
      clock.skip(0, 1e9 / hertz);
      this.checkVoltage();
    });
  }

  /** ADC counts: VSYS/3 on channel 3 (Pico schematic), the diode on channel 4 (RP2040, 4.9.5). */
  analog(channel) {
    let mv = this.analog_mv?.[channel] ?? 0;
    if (typeof mv === 'function') mv = mv(this.now());
    if (channel === 3) mv = this.battery_mv / 3;
    if (channel === 4) mv = 706 - (this.celsius - 27) * 1.721;
    return Math.max(0, Math.min(ADC_FULL, Math.round((mv * ADC_FULL) / ADC_REFERENCE_MV)));
  }

  setPin(pin, level) {
    this.levels.set(pin, level);
    this.chip?.gpio[pin].setInputValue(!!level);
  }

  armSensor() {
    const at = this.sensor.nextEvent();
    if (at === Infinity || !this.chip) return;
    this.eventAlarm.schedule(Math.max(1, at - this.now()));
  }

  // What is looked up most goes first: rp2040js looks for a peripheral at every address written.
  hookMemory(chip) {
    const flash16 = new Uint16Array(chip.flash.buffer, chip.flash.byteOffset);
    const flash32 = new Uint32Array(chip.flash.buffer, chip.flash.byteOffset);
    const ram16 = new Uint16Array(chip.sram.buffer, chip.sram.byteOffset);
    const ram32 = new Uint32Array(chip.sram.buffer, chip.sram.byteOffset);
    const { readUint16, readUint32, writeUint32 } = chip;
    chip.core.readUint16 = (address) => {
      const at = address - 0x10000000;
      if (at >= 0 && at < FLASH_BYTES) return flash16[at >>> 1];
      return readUint16.call(chip, address);
    };
    chip.core.readUint32 = (address) => {
      const at = (address >>> 0) - 0x20000000;
      if (at >= 0 && at < RAM_BYTES && !(at & 3)) return ram32[at >>> 2];
      const f = (address >>> 0) - 0x10000000;
      if (f >= 0 && f < FLASH_BYTES && !(f & 3)) return flash32[f >>> 2];
      return readUint32.call(chip, address);
    };
    chip.core.writeUint32 = (address, value) => {
      const at = (address >>> 0) - 0x20000000;
      if (at >= 0 && at < RAM_BYTES && !(at & 3)) ram32[at >>> 2] = value;
      else writeUint32.call(chip, address, value);
    };
  }

  // The bootrom's flash functions talk to the flash chip through the SSI, which rp2040js does not
  // model. Each becomes a breakpoint that does the work on the array, then returns.
  hookFlash(chip) {
    const halfwords = new Uint16Array(chip.bootrom.buffer);
    const names = ['IF', 'EX', 'RE', 'RP', 'FC', 'CX', 'UB'];
    for (let at = halfwords[0x14 >> 1] >> 1; halfwords[at]; at += 2) {
      const name = String.fromCharCode(halfwords[at] & 0xff, halfwords[at] >> 8);
      const index = names.indexOf(name);
      if (index < 0) continue;
      const entry = (halfwords[at + 1] & ~1) >> 1;
      halfwords[entry] = 0xbe00 | index; // bkpt #index
      halfwords[entry + 1] = 0x4770; // bx lr
    }
    chip.onBreak = (code) => {
      const [r0, r1, r2] = chip.core.registers;
      if (names[code] === 'RE') this.erase(chip, r0, r1);
      else if (names[code] === 'RP') this.program(chip, r0, r1, r2);
      else if (names[code] === 'UB') this.halt = 'bootloader';
      else if (!names[code]) this.halt = 'breakpoint';
    };
  }

  erase(chip, start, length) {
    for (let a = start; a < start + length; a += SECTOR) {
      this.operation(chip, 'erase', a, SECTOR, null);
      this.stall += ERASE_NS;
    }
  }

  program(chip, start, source, length) {
    for (let i = 0; i < length; i += PAGE) {
      const data = new Uint8Array(PAGE);
      for (let j = 0; j < PAGE; j++) data[j] = chip.readUint8(source + i + j);
      this.operation(chip, 'program', start + i, PAGE, data);
      this.stall += PROGRAM_NS;
    }
  }

  /** One erase or program of the flash chip; the one that `cut` names is left half done. */
  operation(chip, kind, address, length, data) {
    this.operations++;
    if (this.log) this.operationLog.push({ n: this.operations, kind, address, us: this.now() / 1e3 });
    const torn = this.cut && this.operations === this.cut.at;
    const draw = torn && this.cut.seed !== undefined ? random(this.cut.seed) : null;
    const keep = torn && !draw ? (this.cut.keep ?? 0) : length;
    for (let i = 0; i < keep; i++) {
      const old = this.flash[address + i];
      const wanted = kind === 'erase' ? 0xff : old & data[i];
      let done = 0xff; // bits of this byte that reached their new value
      if (draw) done = Math.floor(draw() * 256);
      const value = (old & ~done) | (wanted & done);
      this.flash[address + i] = value;
      chip.flash[address + i] = value;
    }
    if (torn) {
      this.cut = null;
      throw new PowerLost();
    }
  }

  // WFI with interrupts masked ends on a pending interrupt without taking it (ARMv6-M, B1.5.19):
  // lightsleep relies on that; rp2040js would enter the handler.
  hookCore(chip) {
    const { core } = chip;
    const take = core.checkForInterrupts.bind(core);
    core.checkForInterrupts = () => {
      if (!(core.waiting && core.PM)) return take();
      if (core.pendingInterrupts & core.enabledInterrupts) core.waiting = false;
      return false;
    };
    this.scr = 0;
    const { ppb } = chip;
    const write = ppb.writeUint32.bind(ppb);
    const read = ppb.readUint32.bind(ppb);
    ppb.writeUint32 = (offset, value) => {
      if (offset === 0xd10) this.scr = value;
      else write(offset, value);
    };
    ppb.readUint32 = (offset) => (offset === 0xd10 ? this.scr : read(offset));
  }

  hookWatchdog(chip, scratch, reason) {
    const watchdog = chip.peripherals[0x40058];
    watchdog.scratchData.set(scratch);
    watchdog.reason = reason;
    watchdog.onWatchdogTrigger = () => {
      watchdog.alarm.enable = false; // it would fire again at the same instant, for ever
      this.halt = 'watchdog';
    };
    this.watchdog = watchdog;
  }

  // VREG, which only losing power resets (RP2040 datasheet, 2.10.6).
  hookRegulator(chip) {
    const regulator = chip.peripherals[0x40064];
    regulator.readUint32 = (offset) => (offset ? 0 : this.vsel << 4 | VREG_ON);
    regulator.writeUint32 = (offset, value) => {
      if (offset) return;
      const vsel = value >> 4 & 15;
      if (vsel > this.vsel) this.vselAt = this.now();
      this.vsel = vsel;
      this.checkVoltage();
    };
  }

  get core_mv() {
    return 550 + 50 * this.vsel;
  }

  /** A chip would fail now and then; here it does at once. */
  checkVoltage() {
    const hertz = this.chip.clkSys;
    const since_ns = this.now() - this.vselAt;
    const most = this.vsel >= VSEL.raised && since_ns >= VREG_NS ? CLK_SYS_HZ.raised
      : CLK_SYS_HZ.default;
    if (hertz > most) {
      throw new Error(`${hertz / 1e6} MHz with the core at ${(this.core_mv / 1000).toFixed(2)} V`
        + ` for ${Math.round(since_ns / 1e3)} us`);
    }
  }

  // A read of the OUT endpoint is answered when there is data, not with an endless row of empty
  // packets, which cost three quarters of the time and never let the chip idle.
  hookUsb(chip) {
    const cdc = new USBCDC(chip.usbCtrl);
    this.cdc = cdc;
    this.usbQueue = [];
    this.usbWanted = 0;
    this.usbReady = false;
    cdc.onDeviceConnected = () => { this.usbReady = true; };
    cdc.onSerialData = (data) => this.usbOut.push(...data);
    chip.usbCtrl.onEndpointRead = (endpoint, size) => {
      if (endpoint !== cdc.outEndpoint) return;
      this.usbWanted = size;
      this.feedUsb();
    };
  }

  sendUsb(bytes) {
    this.usbQueue?.push(...bytes);
    this.feedUsb();
  }

  feedUsb() {
    if (!this.usbWanted || !this.usbQueue.length) return;
    const packet = Uint8Array.from(this.usbQueue.splice(0, this.usbWanted));
    this.usbWanted = 0;
    this.chip.usbCtrl.endpointReadDone(this.cdc.outEndpoint, packet);
  }

  // The PL011's transmitter: 32 bytes that leave at the baud rate, and an interrupt when they have
  // drained to an eighth (RP2040 datasheet, 4.2). rp2040js sends at once and interrupts for ever.
  hookUart(uart) {
    const { clock } = uart.rp2040;
    const sending = [];
    Object.defineProperty(uart, 'flags', { get: () => (uart.rxFIFO.full ? 1 << 6 : 0)
      | (uart.rxFIFO.empty ? 1 << 4 : 0) | (sending.length >= 32 ? 1 << 5 : 0)
      | (sending.length ? 1 << 3 : 1 << 7) });
    uart.checkInterrupts = () => {
      uart.rp2040.setInterrupt(uart.irq, !!(uart.interruptStatus & uart.interruptMask));
    };
    const transmit = clock.createAlarm(() => {
      const byte = sending.shift();
      this.uartOut.push(byte);
      if (byte === 0 && this.stopAtFrame) this.halt = 'frame';
      if (sending.length === 4 || !sending.length) {
        uart.interruptStatus |= 0x20;
        uart.checkInterrupts();
      }
      if (sending.length) transmit.schedule(this.characterNs(uart));
    });
    uart.onByte = (byte) => {
      sending.push(byte);
      if (sending.length === 1) transmit.schedule(this.characterNs(uart));
    };
    this.uartIn = [];
    this.receiving = false;
    const receive = clock.createAlarm(() => {
      this.receiving = this.uartIn.length > 1;
      uart.feedByte(this.uartIn.shift());
      if (this.receiving) receive.schedule(this.characterNs(uart));
    });
    this.wakeUart = () => {
      if (this.receiving || !this.uartIn.length) return;
      this.receiving = true;
      receive.schedule(this.characterNs(uart));
    };
  }

  characterNs(uart) {
    return 1e10 / (uart.baudDivider ? uart.baudRate : 115200);
  }

  sendUart(bytes) {
    this.uartIn.push(...bytes);
    if (this.chip) this.wakeUart();
  }

  /** Reset as the watchdog does it: RAM and peripherals gone, scratch registers kept. */
  watchdogReset() {
    this.resets++;
    this.boot(this.watchdog.scratchData, this.watchdog.reason);
  }

  /**
   * Run until `until_ns` or until something halts; return why: 'time', 'frame', 'power',
   * 'watchdog' (already reset), 'bootloader', 'breakpoint', 'usb'.
   */
  run(until_ns) {
    let reason = 'time';
    while (this.now() < until_ns && this.on) {
      reason = this.slice(until_ns);
      if (reason === 'watchdog') this.watchdogReset();
      if (reason !== 'time') break;
    }
    return reason;
  }

  slice(until_ns) {
    const { chip } = this;
    const { core, clock } = chip;
    const end = until_ns - this.origin_ns;
    const { watchdog } = this;
    let executed = 0;
    this.halt = null;
    this.stall = 0;
    this.armSensor();
    clock.limit = end;
    clock.plan();
    try {
      while (!this.halt) {
        const hung = this.hung && watchdog.enable;
        if (core.waiting || hung) {
          if (!hung && core.pendingInterrupts & core.enabledInterrupts) {
            core.interruptsUpdated = true;
            core.waiting = false;
            continue;
          }
          const next = clock.nextAlarm ? Math.min(clock.nextAlarm.nanos, end) : end;
          const skipped = Math.max(0, next - clock.nanos);
          if (this.scr & SLEEPDEEP) this.sleep_ns += skipped;
          else this.idle_ns += skipped;
          clock.skip(skipped);
          clock.fire();
          if (clock.nanos >= end) break;
          continue;
        }
        core.executeInstruction();
        executed++;
        if (this.stall) {
          clock.skip(this.stall);
          this.stall = 0;
        }
        if (core.cycles >= clock.due) {
          clock.fire();
          if (clock.nanos >= end) break;
        }
      }
    } catch (error) {
      if (!(error instanceof PowerLost)) throw error;
      this.instructions += executed;
      this.powerOff();
      return 'power';
    }
    this.instructions += executed;
    return this.halt ?? 'time';
  }
}
