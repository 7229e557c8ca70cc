// The browser's client against a model of the service: whatever happens, every publish is acked once, every message comes
// once and in order, or there is a gap. A failure names its seed; SEED=… RUNS=… play others: node --test tests/browser
import assert from "node:assert/strict";
import { test } from "node:test";

const SEED = Number(process.env.SEED ?? 1);
const RUNS = Number(process.env.RUNS ?? 4000);
const STEPS = 70;
const GROUPS = ["a", "b"];

// Chance, time and network, all ours

let state = 0;

function random() {
  state = (state + 0x6D2B79F5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}

const below = (bound) => Math.floor(random() * bound);
const anyGroup = () => GROUPS[below(GROUPS.length)];

const real = { setTimeout, clearTimeout, now: Date.now, random: Math.random };
let now = 0;
let timers = [];
let numbers = 0;
let service = null;

class ModelSocket {
  constructor() { service.connect(this); }
  send(text) { service.up.push([this, JSON.parse(text)]); }
  close() {}
}

function takeOver() {
  globalThis.setTimeout = (what, ms) => { timers.push({ id: ++numbers, at: now + ms, what }); return numbers; };
  globalThis.clearTimeout = (id) => { timers = timers.filter((timer) => timer.id !== id); };
  globalThis.WebSocket = ModelSocket;
  globalThis.reportError = (error) => { throw error; };
  Date.now = () => now;
  Math.random = random;
}

function giveBack() {
  Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
  Object.assign(Date, { now: real.now });
  Object.assign(Math, { random: real.random });
}

/** Let promises settle that wait for nothing. */
async function settled() { for (let n = 0; n < 6; n++) await Promise.resolve(); }

async function pass(ms) {
  const end = now + ms;
  for (;;) {
    timers.sort((one, other) => one.at - other.at);
    if (!timers.length || timers[0].at > end) break;
    const timer = timers.shift();
    now = timer.at;
    timer.what();
    await settled();
  }
  now = end;
}

/** A service that keeps the guarantee: logs that dedupe, members that are told in order, answers that may be slow. */
class Service {
  logs = Object.fromEntries(GROUPS.map((group) => [group, []]));
  trimmed = Object.fromEntries(GROUPS.map((group) => [group, 0]));
  socket = null;
  up = [];
  down = [];
  members = {};   // group → { told, events }
  joining = [];   // { group, since, events }: subscriptions without an answer
  busy = false;

  /** `url`: the group that the URL has subscribed, or null. */
  constructor(url) { this.url = url; }

  connect(socket) {
    Object.assign(this, { socket, up: [], down: [], members: {}, joining: [] });
    this.say({ type: "welcome", session: "s", replica: "r" });
    if (this.url) this.joining.push({ group: this.url, since: null, events: false });
  }

  say(frame) { this.down.push(JSON.stringify(frame)); }

  refuse({ id, group }, code) { this.say({ type: "error", code, message: "no", id, group }); }

  hear(frame) {
    const { group } = frame;
    const joined = group in this.members || this.joining.some((one) => one.group === group);
    if (frame.type === "ping") this.say({ type: "pong" });
    else if (this.busy) this.refuse(frame, "rate_limited");
    else if (frame.type === "publish") this.say({ type: "ack", id: frame.id, group, offset: this.store(group, frame.id) });
    else if (frame.type === "history") this.say({ type: "history", group, epoch: "e", offset: this.logs[group].length, messages: [] });
    else if (frame.type === "subscribe" && joined) this.refuse(frame, "already_subscribed");
    else if (frame.type === "subscribe") this.joining.push({ group, since: frame.since ?? null, events: Boolean(frame.events) });
    else if (!joined) this.refuse(frame, "not_subscribed");
    else {
      delete this.members[group];
      this.joining = this.joining.filter((one) => one.group !== group);
    }
  }

  store(group, id) {
    if (!this.logs[group].includes(id)) this.logs[group].push(id);
    this.deliver();
    return this.logs[group].indexOf(id) + 1;
  }

  deliver() {
    if (!this.socket) return;
    for (const [group, member] of Object.entries(this.members)) {
      while (member.told < this.logs[group].length) {
        const offset = ++member.told;
        this.say({ type: "message", group, offset, id: this.logs[group][offset - 1], data: 0 });
      }
    }
  }

  /** Answer the subscriptions that wait. */
  admit() {
    for (const { group, since, events } of this.joining.splice(0)) {
      const recovered = since !== null && since.offset >= this.trimmed[group];
      const offset = recovered ? since.offset : this.logs[group].length;
      this.say({ type: "subscribed", group, epoch: "e", offset, recovered });
      if (since && !recovered) this.say({ type: "gap", group, epoch: "e", offset });
      this.members[group] = { told: offset, events };
    }
    this.deliver();
  }

  /** Answer them so: their log is not there. */
  giveUp() {
    for (const joining of this.joining.splice(0)) this.refuse(joining, "unavailable");
  }
}

/** An app with a client, and what it has been told. */
class App {
  wanted = {};   // group → { place, events }
  acks = {};     // id → offset, null before
  published = 0;

  constructor(connect) { this.client = connect("ws://here/ws/"); }

  subscribe(group) {
    if (this.wanted[group]) return;
    const since = random() < 0.3 ? { epoch: "e", offset: below(service.logs[group].length + 1) } : null;
    const events = random() < 0.3;
    const mine = (this.wanted[group] = { place: since?.offset ?? null, events });
    const check = () => assert.equal(this.wanted[group], mine, `${group}: told after it was unsubscribed`);
    this.client.subscribe(group, {
      subscribed: ({ offset }) => { check(); mine.place ??= offset; },
      message: ({ offset }) => { check(); assert.equal(offset, mine.place + 1, `${group}: in order`); mine.place = offset; },
      gap: ({ offset }) => { check(); assert.ok(mine.place < service.trimmed[group], `${group}: a needless gap`); mine.place = offset; },
      error: (error) => assert.fail(`${group}: ${error.code}`),
      ...(events && { join: () => {} }),
    }, since);
  }

  unsubscribe(group) {
    if (!this.wanted[group]) return;
    delete this.wanted[group];
    this.client.unsubscribe(group);
  }

  publish(group) {
    const id = `p${this.published++}`;
    this.acks[id] = null;
    this.client.publish(group, 0, id).then((offset) => { this.acks[id] = offset; });
  }

  /** Once all has been well for a while, nothing is open any more. */
  check() {
    for (const group of GROUPS) {
      const [wanted, member] = [this.wanted[group], service.members[group]];
      if (wanted) {
        assert.equal(wanted.place, service.logs[group].length, `${group}: its end`);
        assert.ok(member?.events || !wanted.events, `${group}: no events`);
      } else assert.ok(!member || group === service.url, `${group}: sent though nobody wants it`);
    }
    assert.ok(!Object.values(this.acks).includes(null), "a publish without its ack");
  }
}

function hearUp(count) {
  while (count-- > 0 && service.up.length) {
    const [socket, frame] = service.up.shift();
    if (socket === service.socket) service.hear(frame);
  }
}

async function hearDown(count) {
  while (count-- > 0 && service.socket && service.down.length) {
    service.socket.onmessage({ data: service.down.shift() });
    await settled();
  }
}

function cut() {
  const { socket } = service;
  service.socket = null;
  socket?.onclose({ reason: "cut", code: 1006 });
}

const sometimes = (chance, what) => random() < chance && what();

/** What may happen at each step; what is there twice happens more often. */
const HAPPENINGS = [
  (app) => app.subscribe(anyGroup()),
  (app) => sometimes(0.5, () => app.unsubscribe(anyGroup())),
  (app) => app.publish(anyGroup()),
  (app) => sometimes(0.2, () => app.client.history(anyGroup())),
  () => service.store(anyGroup(), `o${numbers++}`),
  () => hearUp(1 + below(3)),
  () => hearUp(1 + below(3)),
  () => hearUp(1 + below(3)),
  () => hearDown(1 + below(3)),
  () => hearDown(1 + below(3)),
  () => hearDown(1 + below(3)),
  () => service.socket && service.admit(),
  () => sometimes(0.3, () => service.socket && service.giveUp()),
  () => sometimes(0.3, cut),
  () => { service.busy = random() < 0.3; },
  () => pass(below(1500)),
  () => sometimes(0.1, () => { const group = anyGroup(); service.trimmed[group] = service.logs[group].length; }),
];

async function play(connect, seed) {
  [state, now, timers] = [seed, 0, []];
  service = new Service(random() < 0.7 ? "a" : null);
  const app = new App(connect);
  await settled();
  for (let step = 0; step < STEPS; step++) {
    await HAPPENINGS[below(HAPPENINGS.length)](app);
    await settled();
  }
  service.busy = false;
  for (let round = 0; round < 60; round++) {
    for (let n = 0; n < 6; n++) {
      hearUp(30);
      await hearDown(30);
      if (service.socket) service.admit();
    }
    await pass(600);
  }
  app.check();
  app.client.close();
}

test("any history ends well", async () => {
  const { connect } = await import("../../app/static/shards.js");
  takeOver();
  try {
    for (let seed = SEED; seed < SEED + RUNS; seed++) {
      try {
        await play(connect, seed);
      } catch (error) {
        error.message = `SEED=${seed}: ${error.message}`;
        throw error;
      }
    }
  } finally {
    giveBack();
  }
});
