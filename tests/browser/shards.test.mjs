// What the browser's client decides, played with a WebSocket and a clock of our own: node --test tests/browser
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { connect, delay } from "../../app/static/shards.js";

let sockets = [];

class FakeSocket {
  constructor(url) { this.url = String(url); this.said = []; this.closed = false; sockets.push(this); }
  send(text) { this.said.push(JSON.parse(text)); }
  close() { this.closed = true; }
  hear(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
  end(code = 1006) { this.onclose({ code, reason: "" }); }
  welcome() { this.hear({ type: "welcome", session: "s", replica: "r" }); return this; }
  take() { return this.said.splice(0); }
}

beforeEach(() => {
  sockets = [];
  globalThis.WebSocket = FakeSocket;
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});

const settled = () => new Promise((resolve) => setImmediate(resolve));
const pass = async (ms) => { await settled(); mock.timers.tick(ms); await settled(); };
const last = () => sockets.at(-1);

async function following(offset = 5, handlers = {}) {
  const seen = { messages: [], gaps: [], errors: [] };
  const client = connect("ws://here/ws/", { error: (error) => seen.errors.push(error.code), ...handlers });
  client.subscribe("g", {
    message: (frame) => seen.messages.push(frame.offset),
    gap: (frame) => seen.gaps.push(frame.offset),
  });
  await settled();
  last().welcome().hear({ type: "subscribed", group: "g", epoch: "e", offset, recovered: false });
  last().take();
  return { client, seen };
}

const message = (offset) => ({ type: "message", group: "g", offset, id: `${offset}`, data: null });
const subscribed = (offset, recovered = true) => ({ type: "subscribed", group: "g", epoch: "e", offset, recovered });

test("a lost connection is resumed from the last place, in the same session", async () => {
  const { client, seen } = await following();
  last().hear(message(6));
  last().end();
  await pass(250);
  assert.equal(sockets.length, 2);
  assert.match(last().url, /session=s/);
  last().welcome();
  assert.deepEqual(last().take(), [{ type: "subscribe", group: "g", since: { epoch: "e", offset: 6 } }]);
  last().hear(subscribed(6));
  last().hear(message(7));
  assert.deepEqual(seen, { messages: [6, 7], gaps: [], errors: [] });
  client.close();
});

test("a duplicate is dropped; a hole is said, and asked for again; where it stays, it is a gap", async () => {
  const { client, seen } = await following();
  last().hear(message(5));
  last().hear(message(8));
  const again = [{ type: "unsubscribe", group: "g" }, { type: "subscribe", group: "g", since: { epoch: "e", offset: 5 } }];
  assert.deepEqual(last().take(), again);
  last().hear(message(9));
  last().hear(subscribed(5));
  last().hear(message(6));
  assert.deepEqual(seen, { messages: [6], gaps: [], errors: ["hole"] });
  last().hear(message(8));
  last().hear(subscribed(6));
  last().hear(message(8));
  assert.deepEqual(seen, { messages: [6, 8], gaps: [7], errors: ["hole", "hole"] });
  client.close();
});

test("a place that is gone is a gap, told once", async () => {
  const { client, seen } = await following();
  last().end();
  await pass(250);
  last().welcome().hear({ type: "subscribed", group: "g", epoch: "new", offset: 2, recovered: false });
  last().hear({ type: "gap", group: "g", epoch: "new", offset: 2 });
  last().hear(message(3));
  assert.deepEqual(seen, { messages: [3], gaps: [2], errors: [] });
  client.close();
});

test("the gap of a history moves no subscription", async () => {
  let past;
  const { client, seen } = await following(5, { history: (frame) => (past = frame) });
  client.history("g", { since: { epoch: "old", offset: 1 } });
  last().hear({ type: "history", group: "g", epoch: "e", offset: 5, messages: [] });
  last().hear({ type: "gap", group: "g", epoch: "e", offset: 5 });
  last().hear(message(6));
  assert.equal(past.gap.offset, 5);
  assert.deepEqual(seen, { messages: [6], gaps: [], errors: [] });
  client.close();
});

test("a history that has all run out is a gap; one that is empty since nothing came is none", async () => {
  const pasts = [];
  const { client } = await following(5, { history: (frame) => pasts.push(frame) });
  for (const offset of [2, 5]) {
    client.history("g", { since: { epoch: "e", offset } });
    last().hear({ type: "history", group: "g", epoch: "e", offset: 5, messages: [] });
    if (offset < 5) last().hear({ type: "gap", group: "g", epoch: "e", offset: 5 });
  }
  assert.deepEqual(pasts.map((past) => past.gap?.offset), [5, undefined]);
  client.close();
});

test("what is asked while there is no connection is asked once there is one, and again after a lost one", async () => {
  const heard = [];
  const client = connect("ws://here/ws/", { history: (frame) => heard.push(frame.gap?.offset ?? "whole"), presence: (frame) => heard.push(frame.count) });
  client.history("g", { since: { epoch: "old", offset: 1 } });
  client.presence("g");
  await settled();
  const since = { epoch: "old", offset: 1 };
  assert.deepEqual(last().welcome().take(), [{ type: "history", group: "g", limit: 100, since }], "one at a time");
  last().end();
  await pass(250);
  assert.deepEqual(last().welcome().take(), [{ type: "history", group: "g", limit: 100, since }]);
  last().hear({ type: "history", group: "g", epoch: "e", offset: 5, messages: [] });
  last().hear({ type: "gap", group: "g", epoch: "e", offset: 5 });
  assert.deepEqual(last().take(), [{ type: "presence", group: "g" }]);
  last().hear({ type: "presence", group: "g", count: 30, members: [] });
  last().hear({ type: "presence", group: "g", count: 1, members: ["me"] });
  client.history("g");
  last().hear({ type: "history", group: "g", epoch: "e", offset: 5, messages: [message(5)] });
  assert.deepEqual(heard, [5, 30, 1, "whole"]);
  client.close();
});

test("a question that is refused is told, and holds up nothing; one that meets no time is asked again", async () => {
  const pasts = [];
  const { client, seen } = await following(5, { history: (frame) => pasts.push(frame.gap) });
  client.history("g", { since: { epoch: "old", offset: 1 } });
  last().take();
  last().hear({ type: "error", code: "unavailable", message: "", group: "g" });
  assert.deepEqual(last().take(), []);
  await pass(1000);
  assert.equal(last().take().length, 1);
  last().hear({ type: "error", code: "forbidden", message: "", group: "g" });
  assert.deepEqual(last().take(), anew, "the first refusal may have been another command's");
  last().hear(subscribed(5));
  client.history("g");
  last().hear({ type: "history", group: "g", epoch: "e", offset: 5, messages: [message(4), message(5)] });
  last().hear(message(6));
  assert.deepEqual(pasts, [null], "the place of the one that was refused is not that of the next");
  assert.deepEqual(seen, { messages: [6], gaps: [], errors: ["unavailable", "forbidden"] });
  client.close();
});

test("a question waits for the answer to a subscription, and an unsubscription for that to a question", async () => {
  const { client } = await following();
  for (const answer of [{ type: "subscribed", epoch: "e", offset: 0 }, { type: "error", code: "forbidden", message: "" }]) {
    client.subscribe("h");
    client.presence("h");
    assert.deepEqual(last().take(), [{ type: "subscribe", group: "h" }]);
    last().hear({ group: "h", ...answer });
    assert.deepEqual(last().take(), [{ type: "presence", group: "h" }]);
    client.unsubscribe("h");
    assert.deepEqual(last().take(), []);
    last().hear({ type: "presence", group: "h", count: 0, members: [] });
    assert.deepEqual(last().take().map((frame) => frame.type), answer.code ? [] : ["unsubscribe"]);
  }
  client.close();
});

test("a name that is none is refused here, and costs no other group its answer", async () => {
  const { client, seen } = await following();
  client.subscribe("h");
  for (const name of ["", "a b", "a/b", "x".repeat(101), "\u{1F600}"]) {
    assert.throws(() => client.subscribe(name), { code: "bad_name" });
    assert.throws(() => client.history(name), { code: "bad_name" });
    await assert.rejects(client.publish(name, 1), { code: "bad_name" });
  }
  assert.deepEqual(last().take(), [{ type: "subscribe", group: "h" }]);
  assert.deepEqual(seen.errors, []);
  client.close();
});

test("an id that is none is refused here; one of 64 characters is none too long, whatever they are", async () => {
  const { client, seen } = await following();
  client.subscribe("h");
  last().take();
  for (const id of ["", "x".repeat(65), 7, null, {}, "\u{1F600}".repeat(65), "half \ud83d"]) {
    await assert.rejects(client.publish("g", 1, id), { code: "bad_id" });
  }
  assert.deepEqual(last().take(), []);
  const ids = ["x".repeat(64), "\u{1F600}".repeat(64), "a\n"];
  for (const id of ids) client.publish("g", 1, id).catch(() => {});
  assert.deepEqual(last().take().map((frame) => frame.id), ids);
  assert.deepEqual(seen.errors, []);
  client.close();
});

test("what JSON cannot say rejects, and takes no room", async () => {
  const { client } = await following();
  const circle = {};
  circle.self = circle;
  for (const data of [1n, circle, undefined, () => {}]) await assert.rejects(client.publish("g", data, "one"), TypeError);
  client.publish("g", 1, "one").catch(() => {});
  assert.deepEqual(last().take().map((frame) => [frame.id, frame.data]), [["one", 1]]);
  client.close();
});

const already = { type: "error", code: "already_subscribed", message: "", group: "g" };
const fromTheHead = { type: "subscribed", group: "g", epoch: "e", offset: 9, recovered: false };
const anew = [{ type: "unsubscribe", group: "g" }, { type: "subscribe", group: "g", since: { epoch: "e", offset: 5 } }];

async function resuming(handlers = {}) {
  const seen = { subscribed: [], messages: [], gaps: [], errors: [] };
  const client = connect("ws://here/ws/g/", { error: (error) => seen.errors.push(error.code) });
  client.subscribe("g", {
    subscribed: (frame) => seen.subscribed.push(frame.offset),
    message: (frame) => seen.messages.push(frame.offset),
    gap: (frame) => seen.gaps.push(frame.offset),
    ...handlers,
  }, { epoch: "e", offset: 5 });
  await settled();
  last().welcome().take();
  return { client, seen };
}

for (const [order, answers] of [["before", [fromTheHead, already]], ["after", [already, fromTheHead]]]) {
  test(`what the URL subscribed, told ${order} ours is refused for it, is not taken for the answer to a resume`, async () => {
    const { client, seen } = await resuming();
    for (const answer of answers) {
      last().hear(answer);
      last().hear(message(10));
    }
    assert.deepEqual(last().take(), anew);
    last().hear(subscribed(5));
    last().hear(message(6));
    assert.deepEqual(seen, { subscribed: [5], messages: [6], gaps: [], errors: [] });
    client.close();
  });
}

test("a resume that failed is told by its gap", async () => {
  const { client, seen } = await resuming();
  last().hear(fromTheHead);
  assert.deepEqual(seen.subscribed, []);
  last().hear({ type: "gap", group: "g", epoch: "e", offset: 9 });
  last().hear(message(10));
  assert.deepEqual(seen, { subscribed: [9], messages: [10], gaps: [9], errors: [] });
  client.close();
});

test("what the URL subscribed does as well where it goes on from our place, except for events", async () => {
  for (const handlers of [{}, { join: () => {} }]) {
    const { client, seen } = await resuming(handlers);
    last().hear(subscribed(5, false));
    last().hear(already);
    assert.deepEqual(seen.errors, []);
    assert.deepEqual(last().take().map((frame) => [frame.type, frame.events]), handlers.join ? [["unsubscribe", undefined], ["subscribe", true]] : []);
    client.close();
  }
});

test("what the URL subscribed is left alone until somebody follows it", async () => {
  const client = connect("ws://here/ws/g/");
  await settled();
  last().welcome().hear(fromTheHead);
  assert.deepEqual(last().take(), []);
  client.subscribe("g", {}, { epoch: "e", offset: 5 });
  assert.deepEqual(last().take(), anew);
  client.close();
});

test("a resume that is refused, for a while or for good, ends what the URL subscribed", async () => {
  for (const code of ["rate_limited", "forbidden"]) {
    const { client, seen } = await resuming();
    last().hear(fromTheHead);
    last().hear({ type: "error", code, message: "", group: "g" });
    await pass(1000);
    assert.deepEqual(last().take(), code === "forbidden" ? anew.slice(0, 1) : anew);
    assert.deepEqual(seen.errors, [code]);
    client.close();
  }
});

test("a subscription that the service still has is made anew", async () => {
  const { client } = await following();
  client.unsubscribe("g");
  client.subscribe("g");
  last().take();
  last().hear({ type: "error", code: "rate_limited", message: "", group: "g" });   // the `unsubscribe`
  last().hear(already);
  assert.deepEqual(last().take(), []);
  await pass(1000);
  assert.deepEqual(last().take().map((frame) => frame.type), ["unsubscribe", "subscribe"]);
  client.close();
});

test("a refused unsubscribe that seemed to be a question's refusal is said again, and holds up no later subscription", async () => {
  for (const later of [false, true]) {
    const { client } = await following();
    const got = [];
    client.unsubscribe("g");
    client.presence("g");
    assert.deepEqual(last().take().map((frame) => frame.type), ["unsubscribe", "presence"]);
    last().hear({ type: "error", code: "rate_limited", message: "", group: "g" });   // the `unsubscribe`
    if (later) client.subscribe("g", { message: (frame) => got.push(frame.offset) });
    await pass(1000);
    last().hear({ type: "presence", group: "g", count: 1, members: ["me"] });
    const said = last().take().map((frame) => frame.type);
    if (!later) assert.deepEqual(said, ["presence", "unsubscribe"]);
    else {
      assert.deepEqual(said, ["subscribe"]);
      last().hear(already);
      assert.deepEqual(last().take().map((frame) => frame.type), ["unsubscribe", "subscribe"]);
      last().hear(subscribed(9, false));
      last().hear(message(10));
      assert.deepEqual(got, [10]);
    }
    client.close();
  }
});

test("an `already_subscribed` is waited on for nothing", async () => {
  const { client, seen } = await resuming();
  last().hear(already);
  assert.deepEqual(last().take(), anew);
  client.close();
  assert.deepEqual(seen.errors, []);
});

test("after a long connection delays are short again, however it was left", async () => {
  for (const leave of ["drop", "hint"]) {
    const client = connect("ws://here/ws/");
    mock.method(Math, "random", () => 0.999);
    await settled();
    for (let attempt = 0; attempt < 5; attempt++) {
      last().end();
      await pass(250 * 2 ** attempt);
    }
    last().welcome();
    for (let n = 0; n < 3; n++) {
      await pass(9_000);
      last().hear({ type: "pong" });
    }
    if (leave === "drop") client.drop();
    else {
      last().hear({ type: "reconnect", within_ms: 1 });
      await pass(1);
      await pass(0);
      last().end();
    }
    const count = sockets.length;
    await pass(250);
    assert.equal(sockets.length, count + 1, leave);
    mock.restoreAll();
    client.close();
  }
});

test("the place in a URL is that of the first connect", async () => {
  const client = connect("ws://here/ws/g/?epoch=e&offset=3&keep=1");
  await settled();
  assert.equal(last().url, "ws://here/ws/g/?epoch=e&offset=3&keep=1");
  last().welcome().end();
  await pass(250);
  assert.equal(last().url, "ws://here/ws/g/?keep=1&session=s");
  client.close();
});

test("messages in flight after an unsubscribe are nobody's, and a new subscription starts anew", async () => {
  const { client, seen } = await following();
  client.unsubscribe("g");
  last().hear(message(6));
  const later = [];
  client.subscribe("g", { message: (frame) => later.push(frame.offset) });
  last().hear(message(7));
  assert.deepEqual(last().take().map((frame) => frame.type), ["unsubscribe", "subscribe"]);
  last().hear(subscribed(9, false));
  last().hear(message(10));
  assert.deepEqual([seen.messages, later], [[], [10]]);
  assert.throws(() => client.subscribe("g"), /already/);
  client.close();
});

test("a refused subscription is told to it, and not asked for again", async () => {
  const client = connect("ws://here/ws/");
  const refused = [];
  client.subscribe("a", { error: (error) => refused.push(error.code) });
  client.subscribe("b");
  await settled();
  last().welcome().hear({ type: "error", code: "forbidden", message: "no", group: "a" });
  assert.deepEqual(refused, ["forbidden"]);
  last().end();
  await pass(250);
  last().welcome();
  assert.deepEqual(last().take(), [{ type: "subscribe", group: "b" }]);
  client.close();
});

test("what the service has no time for is said again, later, in order", async () => {
  const { client } = await following();
  const acks = [1, 2, 3].map((n) => client.publish("g", n, `${n}`));
  last().take();
  for (const id of ["2", "3"]) last().hear({ type: "error", code: "rate_limited", message: "no", id });
  last().hear({ type: "ack", id: "1", group: "g", offset: 6 });
  await pass(400);
  assert.deepEqual(last().take(), []);
  await pass(1000);
  assert.deepEqual(last().take().map((frame) => frame.id), ["2", "3"]);
  last().hear({ type: "ack", id: "2", group: "g", offset: 7 });
  last().hear({ type: "ack", id: "3", group: "g", offset: 8 });
  assert.deepEqual(await Promise.all(acks), [6, 7, 8]);
  client.close();
});

test("a refused unsubscribe is said again", async () => {
  const { client } = await following();
  client.unsubscribe("g");
  last().take();
  last().hear({ type: "error", code: "rate_limited", message: "no", group: "g" });
  await pass(1000);
  assert.deepEqual(last().take(), [{ type: "unsubscribe", group: "g" }]);
  client.close();
});

test("the outbox survives, keeps its order, and is sent a window at a time", async () => {
  const { client } = await following();
  for (let n = 0; n < 100; n++) client.publish("g", n, `${n}`).catch(() => {});
  assert.equal(last().take().length, 32);
  last().end();
  await pass(250);
  last().welcome();
  const ids = last().take().filter((frame) => frame.type === "publish").map((frame) => frame.id);
  assert.deepEqual(ids, Array.from({ length: 32 }, (_, n) => `${n}`));
  last().hear({ type: "ack", id: "0", group: "g", offset: 6 });
  assert.deepEqual(last().take().map((frame) => frame.id), ["32"]);
  client.close();
});

test("a full outbox says so; one id is one message; a refusal rejects", async () => {
  const { client } = await following();
  const first = client.publish("g", 0, "0");
  assert.equal(client.publish("g", 0, "0"), first);
  for (let n = 1; n < 1000; n++) client.publish("g", n, `${n}`).catch(() => {});
  await assert.rejects(client.publish("g", 0), { code: "outbox_full" });
  last().hear({ type: "error", code: "forbidden", message: "no", id: "0" });
  await assert.rejects(first, { code: "forbidden", id: "0" });
  await assert.rejects(client.publish("g", undefined), TypeError);
  client.close();
});

test("what was sent too long ago is not sent again, what was not sent is", async () => {
  const { client } = await following();
  const sent = client.publish("g", 0, "sent");
  last().end();
  client.publish("g", 0, "unsent").catch(() => {});
  mock.timers.tick(250);
  await settled();
  for (let n = 0; n < 30; n++) await pass(10_000);
  last().take();
  last().welcome();
  assert.deepEqual(last().take().filter((frame) => frame.type === "publish").map((frame) => frame.id), ["unsent"]);
  await assert.rejects(sent, { code: "unconfirmed" });
  client.close();
});

test("silence is broken by a ping; without an answer the connection is dropped, and no late frame of it counts", async () => {
  const { client, seen } = await following();
  const old = last();
  await pass(10_000);
  assert.deepEqual(old.take(), [{ type: "ping" }]);
  old.hear({ type: "pong" });
  await pass(10_000);
  assert.deepEqual(old.take(), [{ type: "ping" }]);
  await pass(10_000);
  assert.equal(old.closed, true);
  await pass(250);
  assert.equal(sockets.length, 2);
  old.hear(message(6));
  old.end();
  assert.deepEqual(seen.messages, []);
  client.close();
});

test("who gets no welcome tries again", async () => {
  const client = connect("ws://here/ws/");
  await pass(10_000);
  await pass(250);
  assert.equal(sockets.length, 2);
  assert.equal(sockets[0].closed, true);
  client.close();
});

test("a hint is obeyed within its time, and at once", async () => {
  const { client } = await following();
  last().hear({ type: "reconnect", within_ms: 5000 });
  last().hear({ type: "reconnect", within_ms: 5000 });
  assert.equal(sockets.length, 1);
  await pass(5000);
  await pass(0);
  assert.equal(sockets.length, 2);
  client.close();
});

test("a token may be fresh at each connect; one that fails is told, and asked for again", async () => {
  let count = 0;
  const errors = [];
  const token = async () => { if (count++ === 1) throw new Error("no such user"); return `t${count}`; };
  const client = connect("ws://here/ws/?a=1", { token, error: (error) => errors.push(error.code) });
  await settled();
  assert.equal(last().url, "ws://here/ws/?a=1&token=t1");
  last().welcome().end();
  await pass(250);
  assert.deepEqual(errors, ["token"]);
  await pass(500);
  assert.match(last().url, /token=t3/);
  client.close();
});

test("closing clears every timer, rejects what waits, and stays closed", async () => {
  const { client } = await following();
  const waiting = client.publish("g", 1);
  client.close();
  await assert.rejects(waiting, { code: "closed" });
  await assert.rejects(client.publish("g", 1), { code: "closed" });
  await pass(100_000);
  assert.equal(sockets.length, 1);
  assert.equal(last().closed, true);
});

test("a handler that throws stops nothing", async () => {
  const thrown = [];
  globalThis.reportError = (error) => thrown.push(error.message);
  const { client, seen } = await following(5, { online: () => { throw new Error("oh"); } });
  last().hear(message(6));
  assert.deepEqual([seen.messages, thrown], [[6], ["oh"]]);
  client.close();
});

test("a server that says no right after each welcome is met with growing delays", async () => {
  const client = connect("ws://here/ws/");
  mock.method(Math, "random", () => 0.999);
  await settled();
  for (let attempt = 0; attempt < 5; attempt++) {
    last().welcome().end(1008);
    const count = sockets.length;
    await pass(250 * 2 ** attempt * 0.9);
    assert.equal(sockets.length, count);
    await pass(250 * 2 ** attempt * 0.1);
    assert.equal(sockets.length, count + 1);
  }
  mock.restoreAll();
  client.close();
});

test("a server that does not answer is met with growing delays; one that did, for long, with short ones", async () => {
  const client = connect("ws://here/ws/");
  mock.method(Math, "random", () => 0.999);
  await settled();
  const wait = async (bound) => {
    const count = sockets.length;
    await pass(bound * 0.9);
    assert.equal(sockets.length, count);
    await pass(bound * 0.1);
    assert.equal(sockets.length, count + 1);
  };
  // Timers are a little late: here all that are due within `ms` come at its end.
  const late = async (ms) => { mock.timers.setTime(Date.now() + ms); await pass(1); };
  for (let attempt = 0; attempt < 4; attempt++) {
    await late(10_005);
    await wait(250 * 2 ** attempt);
  }
  last().welcome();
  await late(9_000);
  last().hear({ type: "pong" });
  await late(9_000);
  last().end();
  await wait(250);
  mock.restoreAll();
  client.close();
});

test("what is too big for a frame is refused, and the rest goes on", async () => {
  const { client } = await following();
  const big = client.publish("g", "x".repeat(99), "big");
  client.publish("g", "x", "small").catch(() => {});
  last().end(1009);
  await assert.rejects(big, { code: "too_large" });
  await pass(250);
  last().welcome();
  assert.deepEqual(last().take().filter((frame) => frame.type === "publish").map((frame) => frame.id), ["small"]);
  client.close();
});

test("delays are spread from zero to a growing bound", () => {
  assert.equal(delay(0, () => 1), 250);
  assert.equal(delay(40, () => 1), 10_000);
  assert.equal(delay(40, () => 0), 0);
});

test("who handles comings and goings asks for them, and again after a reconnect", async () => {
  const seen = [];
  const client = connect("ws://here/ws/");
  client.subscribe("g", { join: (frame) => seen.push(`+${frame.member}`), leave: (frame) => seen.push(`-${frame.member}`) });
  await settled();
  last().welcome();
  assert.deepEqual(last().take(), [{ type: "subscribe", group: "g", events: true }]);
  last().hear(subscribed(5, false));
  last().hear({ type: "join", group: "g", member: "a" });
  last().hear({ type: "leave", group: "g", member: "a" });
  last().hear({ type: "join", group: "another", member: "b" });
  assert.deepEqual(seen, ["+a", "-a"]);
  last().end();
  await pass(250);
  last().welcome();
  assert.deepEqual(last().take(), [{ type: "subscribe", group: "g", since: { epoch: "e", offset: 5 }, events: true }]);
  client.close();
});

test("who wants events after all subscribes anew, also where the first subscription has no answer yet", async () => {
  const client = connect("ws://here/ws/");
  client.subscribe("g", { message: () => {} });
  await settled();
  last().welcome().take();
  client.unsubscribe("g");
  const joined = [];
  client.subscribe("g", { join: (frame) => joined.push(frame.member) });
  last().hear(subscribed(5, false));
  assert.deepEqual(last().take(), [{ type: "unsubscribe", group: "g" }, { type: "subscribe", group: "g", events: true }]);
  last().hear(subscribed(5, false));
  last().hear({ type: "join", group: "g", member: "a" });
  assert.deepEqual(joined, ["a"]);
  client.close();
});

test("a handler may unsubscribe from within, also before its gap", async () => {
  const { client, seen } = await resuming({ subscribed: () => client.unsubscribe("g") });
  last().hear(fromTheHead);
  last().hear({ type: "gap", group: "g", epoch: "e", offset: 9 });
  assert.deepEqual(last().take(), [{ type: "unsubscribe", group: "g" }]);
  assert.deepEqual(seen.gaps, []);
  client.close();
});
