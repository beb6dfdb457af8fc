// The emulator's process: one request a line on stdin, one answer a line on stdout, both JSON.
// In between it either stands still (a test drives it step by step, and two runs give the same
// numbers) or, after `serve`, keeps pace with the wall clock and offers USB and UART on TCP.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

import { Board, FLASH_BYTES } from './chip.mjs';

const NS_PER_US = 1000;
const SLICE_MS = 10;

let board = null;
let served = null; // {speed, usb: Set<Socket>, uart: Set<Socket>}

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const unhex = (text) => Buffer.from(text ?? '', 'hex');

function loadUf2(image, flash) {
  for (let at = 0; at + 512 <= image.length; at += 512) {
    if (image.readUInt32LE(at) !== 0x0a324655 || image.readUInt32LE(at + 4) !== 0x9e5d5157) {
      throw new Error(`block ${at / 512} is not UF2`);
    }
    const target = image.readUInt32LE(at + 12) - 0x10000000;
    const size = image.readUInt32LE(at + 16);
    if (target >= 0 && target + size <= FLASH_BYTES) {
      flash.set(image.subarray(at + 32, at + 32 + size), target);
    }
  }
}

function state(reason) {
  return {
    reason,
    now_us: board.now() / NS_PER_US,
    on: board.on,
    instructions: board.instructions,
    sleep_us: board.sleep_ns / NS_PER_US,
    idle_us: board.idle_ns / NS_PER_US,
    operations: board.operations,
    resets: board.resets,
    usb: hex(board.usbOut.splice(0)),
    uart: hex(board.uartOut.splice(0)),
    usb_ready: !!board.usbReady,
  };
}

const verbs = {
  create({ bootrom, usb, pins }) {
    const words = readFileSync(bootrom);
    board = new Board(new Uint32Array(words.buffer, words.byteOffset, words.length / 4),
                      { usb, pins });
  },
  /** Put files into flash: a raw image, then a UF2, then raw bytes at offsets. */
  load({ image, uf2, parts }) {
    if (image) board.flash.set(readFileSync(image).subarray(0, FLASH_BYTES));
    if (uf2) loadUf2(readFileSync(uf2), board.flash);
    for (const { offset, data } of parts ?? []) board.flash.set(unhex(data), offset);
  },
  save({ image }) {
    writeFileSync(`${image}.new`, board.flash);
    renameSync(`${image}.new`, image);
  },
  peek({ offset, length }) {
    return { data: hex(board.flash.subarray(offset, offset + length)) };
  },
  power({ on, after_us }) {
    if (!on && board.on) board.powerOff();
    if (after_us) board.rest(after_us * NS_PER_US);
    if (on && !board.on) board.powerOn();
    return state('time');
  },
  /** Run for `us`, or until a frame's closing 0x00 leaves the UART, or `until` is seen on USB. */
  run({ us, frame, until }) {
    board.stopAtFrame = !!frame;
    const end = board.now() + us * NS_PER_US;
    if (!until) return state(board.run(end));
    const wanted = unhex(until);
    let reason = 'time';
    while (board.now() < end) {
      reason = board.run(Math.min(end, board.now() + 1e6));
      if (reason !== 'time' || !board.on) break;
      if (Buffer.from(board.usbOut).includes(wanted)) {
        reason = 'usb';
        break;
      }
    }
    return state(reason);
  },
  usb({ data }) { board.sendUsb(unhex(data)); },
  uart({ data }) { board.sendUart(unhex(data)); },
  pin({ pin, level }) { board.setPin(pin, level); },
  supply({ battery_mv, celsius, analog_mv }) {
    if (battery_mv !== undefined) board.battery_mv = battery_mv;
    if (celsius !== undefined) board.celsius = celsius;
    if (analog_mv) board.analog_mv = { ...board.analog_mv, ...analog_mv };
  },
  /** Lose power in the `after`th flash operation from now: `keep` bytes done, or bits by `seed`. */
  cut({ after, keep, seed }) {
    board.cut = after ? { at: board.operations + after, keep, seed } : null;
  },
  /** Stop the program where it is; only the watchdog gets it going again. */
  hang() { board.hung = true; },
  /** The watchdog's scratch registers, which survive resets and where the node leaves figures. */
  scratch() { return { words: board.on ? Array.from(board.watchdog.scratchData) : [] }; },
  /** What the core runs at. */
  core() { return { mhz: board.chip.clkSys / 1e6, mv: board.core_mv }; },
  log({ on }) { board.log = on; },
  operations() { return { log: board.operationLog.splice(0) }; },
  /** Play int16 rows from `file` in front of the sensor, from `at_us` for `for_us`, repeating. */
  play({ file, at_us, for_us, rate_hz, channels, range_g, range_dps }) {
    const bytes = readFileSync(file);
    const data = new Int16Array(bytes.length >> 1);
    for (let i = 0; i < data.length; i++) data[i] = bytes.readInt16LE(2 * i);
    const start_ns = (at_us ?? board.now() / NS_PER_US) * NS_PER_US;
    const rows = data.length / channels;
    const length_ns = for_us ? for_us * NS_PER_US : (rows / rate_hz) * 1e9;
    const recordings = board.sensor.recordings;
    recordings.push({ start_ns, end_ns: start_ns + length_ns, rate_hz, data, channels, range_g,
                      range_dps });
    recordings.sort((a, b) => a.start_ns - b.start_ns);
  },
  sensor({ silent, stuck }) {
    if (silent !== undefined) board.sensor.silent = silent;
    if (stuck !== undefined) board.sensor.stuck = stuck;
  },
  registers() { return { registers: hex(board.sensor.registers) }; },
  /** Everything read from the FIFO since the last call, one list a FIFO start. */
  delivered() {
    const all = board.sensor.delivered;
    board.sensor.delivered = all.slice(-1).map(({ start_ns }) => ({ start_ns, words: [] }));
    return { windows: all.map(({ start_ns, words }) => ({ start_us: start_ns / NS_PER_US, words })) };
  },
  async serve({ usb_port, uart_port, speed }) {
    served = { speed: speed ?? 1, usb: new Set(), uart: new Set() };
    const ports = {
      usb_port: await listen(usb_port ?? 0, served.usb, (data) => board.sendUsb(data)),
      uart_port: await listen(uart_port ?? 0, served.uart, (data) => board.sendUart(data)),
    };
    served.wall = performance.now();
    served.base_us = board.now() / NS_PER_US;
    setTimeout(live, 0);
    return ports;
  },
  status() { return state('time'); },
};

function listen(port, sockets, receive) {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.setNoDelay(true);
      sockets.add(socket);
      socket.on('data', receive);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => sockets.delete(socket));
    });
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server.address().port));
  });
}

/** Keep the board's clock at `speed` times the wall's, in slices, so that sockets get their turn. */
function live() {
  const elapsed = performance.now() - served.wall;
  const due_us = served.base_us + elapsed * 1000 * served.speed;
  const before = performance.now();
  while (board.on && board.now() / NS_PER_US < due_us && performance.now() - before < SLICE_MS) {
    const reason = board.run(Math.min(due_us * NS_PER_US, board.now() + 1e6));
    if (reason === 'bootloader' || reason === 'breakpoint') {
      console.error(`the chip stopped: ${reason}`);
      board.powerOff();
    }
  }
  if (board.now() / NS_PER_US < due_us - 50000) { // slower than the wall: let the clock slip
    served.wall = performance.now();
    served.base_us = board.now() / NS_PER_US;
  }
  for (const [sockets, bytes] of [[served.usb, board.usbOut], [served.uart, board.uartOut]]) {
    if (!bytes.length) continue;
    const data = Buffer.from(bytes.splice(0));
    for (const socket of sockets) socket.write(data);
  }
  setTimeout(live, board.now() / NS_PER_US < due_us ? 0 : 1);
}

const lines = createInterface({ input: process.stdin });
let turn = Promise.resolve();
lines.on('line', (line) => {
  turn = turn.then(async () => {
    let answer;
    try {
      const request = JSON.parse(line);
      answer = (await verbs[request.do](request)) ?? {};
    } catch (error) {
      answer = { error: String(error?.message ?? error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  });
});
lines.on('close', () => turn.then(() => process.exit(0)));
