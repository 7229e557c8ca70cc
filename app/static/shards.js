/**
 * A client that loses nothing: reconnects with full jitter, resumes each group from its place, and keeps every publish
 * until it is acked. No dependencies.
 *
 *   import { connect } from "./shards.js";
 *   const client = connect("/ws/");
 *   client.subscribe("lobby", { message: (m) => console.log(m.offset, m.data), gap: () => reload() });
 *   await client.publish("lobby", { text: "hello" });   // resolves with the offset once it is in the log
 *
 * docs/clients.md tells more; the wire protocol is in docs/design.md.
 *
 * Each group has at most one command under way, so an answer, or an error that names the group, belongs to it.
 * Frames between an `unsubscribe` and the next `subscribed` are of the earlier subscription: the log has them.
 *
 * A URL may have the service subscribe a group by itself, from its head on. What it says of that looks like an answer to
 * our own `subscribe`, which it refuses (`already_subscribed`), before or after. They are told apart by the gap: one comes
 * right after ours where it does not go on from the place we said.
 *
 * Whatever does not fit what we believe the service has, such as that refusal or one `subscribed` too many, has the group
 * made anew from our place: `unsubscribe`, then `subscribe`. That is right whatever was the matter, and waits for nothing
 * but the answer to a `subscribe`, which always comes; where there was nothing to end, the service only says so.
 */

const FIRST_DELAY_MS = 250;
const LAST_DELAY_MS = 10_000;
const STEADY_MS = 10_000;    // after a connection that lasted this long, from its welcome on, delays are short again
const OPEN_MS = 10_000;      // from the attempt to the welcome
const SILENCE_MS = 10_000;   // then we ping, and without an answer for as long, the connection is taken for dead
const HOLD_MS = 500;
const WINDOW = 32;           // publishes under way at once: who comes back with a full outbox is not taken for a flood
const OUTBOX = 1000;
const RESEND_MS = 90_000;    // dedupe marks last 120 s, 30 s of which a server may take over a publish

const TRY_AGAIN = new Set(["unavailable", "rate_limited"]);

/** Full jitter: anywhere up to the exponential bound, so that a crowd comes back spread out. */
export function delay(attempt, random = Math.random) {
  return random() * Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
}

/** What a publish is rejected with, and what the `error` handlers get: `code` is one of docs/design.md, or
 * `outbox_full`, `unconfirmed`, `closed`, `hole`, `token`. */
export class ShardsError extends Error {
  constructor(code, message, about = {}) {
    super(message);
    this.name = "ShardsError";
    Object.assign(this, about, { code });
  }
}

/**
 * Connect to `url` (absolute, or a path on this host); gives a Client at once.
 *
 * Handlers, all optional: online(welcome), offline(reason), error(error), history(frame), presence(frame), and
 * token: a string, or a function (it may be async) that gives a fresh one for each connect.
 */
export function connect(url, handlers = {}) {
  return new Client(new URL(url, globalThis.location?.href.replace(/^http/, "ws")), handlers);
}

class Client {
  #url; #handlers;
  #socket = null;         // null: none, or one that is not ours any more
  #online = false;        // the service took us in
  #session = null;
  #attempt = 0;
  #welcomedAt = null;     // when this connection's welcome came
  #closed = false;
  #held = false;          // the service has no time for us: nothing is said for a while
  #timers = {};           // name → id: one each, all cleared on close
  // name → { handlers, events, place, state, stale, healed, asked: what the last `subscribe` said, and of what came then:
  //   found: a `subscribed` that goes on elsewhere, and is ours if its gap comes next,
  //   vain: ours was refused, as the service has the group subscribed already,
  //   doubt: ours was refused for lack of time, unless that was the refusal of a command before }
  #groups = new Map();
  #unasked = null;        // the URL's group, where the service has it subscribed and nobody here follows it
  #requests = [];         // { frame, sent, doubt: as above }: questions that have no answer yet, in the order asked
  #pastGap = null;        // that of the history that was just told
  #outbox = new Map();    // id → { text, promise, resolve, reject, sentAt, unsureSince }, in the order published
  #underway = 0;

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    this.#open();
  }

  get online() { return this.#online; }

  /**
   * Follow a group, from now on, or after a place `since` = { epoch, offset }. Handlers, all optional:
   * subscribed(frame), message(frame), gap(frame): messages up to its place are gone, error(error): it was refused,
   * join(frame) and leave(frame): a member, by its public id, came or went. Where many do at once, the connection's
   * `presence` handler is told how many are there instead.
   */
  subscribe(group, handlers = {}, since = null) {
    checkName(group);
    const old = this.#groups.get(group);
    if (old?.handlers) throw new Error(`${group} is subscribed already`);
    // state: "none", "asked" (no answer yet) or "live", as the service has it after all we said.
    const had = group === this.#unasked ? { state: "live" } : { state: "none", ...old };
    if (group === this.#unasked) this.#unasked = null;
    const events = Boolean(handlers.join || handlers.leave);
    this.#groups.set(group, { ...old, ...had, handlers, events, place: since, healed: null, stale: had.state === "live" });
    this.#reconcile(group);
  }

  unsubscribe(group) {
    const topic = this.#groups.get(group);
    if (!topic) return;
    topic.handlers = null;
    topic.place = null;
    this.#reconcile(group);
  }

  /** Publish; resolves with the message's offset once it is in the log, however often that takes to try. */
  publish(group, data, id = newId()) {
    const waiting = this.#outbox.get(id);
    if (waiting) return waiting.promise;
    if (this.#closed) return Promise.reject(closed());
    if (!isName(group)) return Promise.reject(badName(group));
    if (!isId(id)) return Promise.reject(badId(id));
    if (this.#outbox.size >= OUTBOX) {
      return Promise.reject(new ShardsError("outbox_full", `${OUTBOX} publishes wait for their acks: await some of them`));
    }
    let text;
    try {
      text = publishFrame(group, id, data);
    } catch (error) {
      return Promise.reject(error);
    }
    const publish = { id, text, sentAt: null, unsureSince: null };
    publish.promise = new Promise((resolve, reject) => Object.assign(publish, { resolve, reject }));
    this.#outbox.set(id, publish);
    this.#pump();
    return publish.promise;
  }

  /** Ask for messages after a place, or the last ones; the `history` handler gets them, however often it takes to ask. */
  history(group, { since, limit = 100 } = {}) { this.#ask({ type: "history", group, limit, ...(since && { since }) }); }

  /** Ask who is there; the `presence` handler is told. */
  presence(group) { this.#ask({ type: "presence", group }); }

  /** Drop the connection as a failing network would; the client comes back by itself. */
  drop() { this.#leave("dropped"); }

  /** Close for good: timers are gone, and publishes that wait are rejected. */
  close() {
    this.#closed = true;
    this.#leave("closed");
    for (const name of Object.keys(this.#timers)) this.#cancel(name);
    for (const publish of this.#outbox.values()) publish.reject(closed());
    this.#outbox.clear();
    this.#groups.clear();
    this.#requests = [];
  }

  // Connections

  async #open() {
    this.#after("deadline", OPEN_MS, () => this.#lost("no welcome in time"));
    const attempt = (this.#socket = {});   // until there is a socket: who asks for a token may be overtaken
    const url = new URL(this.#url);
    try {
      const { token } = this.#handlers;
      const value = typeof token === "function" ? await token() : token;
      if (value != null) url.searchParams.set("token", value);
    } catch (error) {
      if (attempt !== this.#socket) return;
      this.#complain(new ShardsError("token", `no token: ${error?.message ?? error}`));
      return this.#lost("no token");
    }
    if (attempt !== this.#socket) return;
    if (this.#session) {
      url.searchParams.set("session", this.#session);
      // A place is that of the first connect: what came since we have, and say so with `subscribe`.
      for (const name of ["epoch", "offset"]) url.searchParams.delete(name);
    }
    const socket = (this.#socket = new WebSocket(url));
    socket.onmessage = (event) => { if (socket === this.#socket) this.#hear(event.data); };
    socket.onclose = (event) => { if (socket === this.#socket) this.#lost(event.reason || `closed: ${event.code}`, event.code); };
  }

  /** The connection is gone, or as good as gone: one that is half open would not say so for minutes. */
  #lost(reason, code) {
    if (code === 1009) this.#refuseLargest();
    this.#leave(reason);
  }

  /** Let go of the socket, and come back, after a delay or at once. */
  #leave(reason, atOnce = false) {
    const socket = this.#socket;
    // To wait for an answer in vain takes as long as a connection that lasted.
    if (this.#welcomedAt !== null && Date.now() - this.#welcomedAt > STEADY_MS) this.#attempt = 0;
    this.#welcomedAt = null;
    this.#socket = null;
    this.#online = this.#held = false;
    this.#unasked = null;
    this.#underway = 0;
    for (const request of this.#requests) request.sent = request.doubt = false;
    for (const name of ["deadline", "silence", "hold", "move"]) this.#cancel(name);
    for (const [name, topic] of this.#groups) {
      topic.state = "none";
      topic.stale = topic.vain = topic.doubt = false;
      if (!topic.handlers) this.#groups.delete(name);
    }
    for (const publish of this.#outbox.values()) unsend(publish, true);
    socket?.close?.();
    if (!this.#closed) this.#after("open", atOnce ? 0 : delay(this.#attempt++), () => this.#open());
    if (socket) this.#call(this.#handlers.offline, reason);
  }

  #after(name, ms, what) {
    this.#cancel(name);
    this.#timers[name] = setTimeout(() => { delete this.#timers[name]; what(); }, ms);
  }

  #cancel(name) {
    clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }

  /** Something came: the next silence is measured from here. */
  #listen() {
    this.#after("silence", SILENCE_MS, () => {
      this.#say({ type: "ping" });
      this.#after("silence", SILENCE_MS, () => this.#lost("silent"));
    });
  }

  #say(frame) { if (this.#online) this.#socket.send(JSON.stringify(frame)); }

  /** Call a handler; what it throws is for the page's own error reporting, and does not stop us. */
  #call(handler, ...values) {
    try {
      handler?.(...values);
    } catch (error) {
      if (globalThis.reportError) reportError(error);
      else console.error(error);
    }
  }

  #complain(error) { this.#call(this.#handlers.error, error); }

  // Frames

  #hear(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#lost("no frame of the protocol");
    }
    if (this.#online) this.#listen();
    const pastGap = this.#pastGap;
    this.#pastGap = null;
    switch (frame.type) {
      case "welcome": return this.#welcome(frame);
      case "subscribed": return this.#subscribed(frame);
      case "message": return this.#message(frame);
      case "gap": return same(frame, pastGap) && frame.group === pastGap.group ? undefined : this.#gap(frame);
      case "ack": return this.#settle(frame.id, (publish) => publish.resolve(frame.offset));
      case "reconnect":
        if (this.#timers.move) return undefined;
        return this.#after("move", Math.random() * frame.within_ms, () => this.#leave("asked to", true));
      case "error": return this.#refused(frame);
      case "history": return this.#history(frame);
      case "presence": return this.#presence(frame);
      case "pong": return undefined;
      case "join":
      case "leave": return this.#call(this.#live(frame.group)?.handlers[frame.type], frame);
      default: return this.#call(this.#handlers[frame.type], frame);
    }
  }

  #welcome(frame) {
    this.#cancel("deadline");
    this.#online = true;
    this.#welcomedAt = Date.now();
    this.#session = frame.session;
    this.#listen();
    this.#reconcileAll();
    this.#pump();
    this.#call(this.#handlers.online, frame);
  }

  // Groups

  /** Say what takes the service from what it has of a group to what we want. */
  #reconcile(group) {
    const topic = this.#groups.get(group);
    if (topic?.state === "asked" || this.#held || this.#requestOf(group)) return;
    if (topic) this.#reconcileTopic(group, topic);
    if (topic?.state !== "asked") this.#sendRequest(group);
  }

  #reconcileAll() {
    const groups = [...this.#groups.keys(), ...this.#requests.map((request) => request.frame.group)];
    for (const group of new Set(groups)) this.#reconcile(group);
  }

  #reconcileTopic(group, topic) {
    if (topic.doubt && !topic.handlers) topic.state = "live";   // the service may have it
    if (topic.state === "live" && (topic.stale || !topic.handlers)) {
      if (!this.#online) return;
      topic.state = "none";
      topic.stale = topic.doubt = false;
      this.#say({ type: "unsubscribe", group });
    }
    if (topic.state === "none" && topic.handlers && this.#online) {
      topic.state = "asked";
      topic.asked = { place: topic.place, events: topic.events };
      topic.found = null;
      this.#say({ type: "subscribe", group, ...(topic.place && { since: topic.place }), ...(topic.events && { events: true }) });
    } else if (topic.state === "none" && !topic.handlers) this.#groups.delete(group);
  }

  /** The group's topic, where what comes is what comes next. */
  #live(group) {
    const topic = this.#groups.get(group);
    return topic?.state === "live" && !topic.stale && topic.handlers ? topic : null;
  }

  #subscribed(frame) {
    const { group } = frame;
    const topic = this.#groups.get(group);
    if (!topic?.handlers && topic?.state !== "asked") {
      this.#unasked = group;
      return;
    }
    topic.vain = topic.doubt = false;
    if (topic.state !== "asked") this.#startAnew(group);
    else if (!topic.asked.place || same(topic.asked.place, frame)) this.#begin(topic, frame);
    else topic.found = frame;
  }

  /** Take what comes after a `subscribed` for what comes next. */
  #begin(topic, frame) {
    const { asked, place: before } = topic;
    topic.state = "live";
    // It may have been unsubscribed meanwhile, and subscribed from elsewhere, or with other events.
    topic.stale = before !== asked.place || topic.events !== asked.events;
    if (topic.stale || !topic.handlers) return this.#reconcile(frame.group);
    const place = { epoch: frame.epoch, offset: frame.offset };
    if (!same(before, frame)) topic.place = place;
    this.#call(topic.handlers.subscribed, frame);
    if (before && !same(before, frame)) this.#call(topic.handlers?.gap, { ...place, type: "gap", group: frame.group });
    this.#reconcile(frame.group);
  }

  /** End what the service has of a group, before anything else is said about it. */
  #startAnew(group) {
    const topic = this.#groups.get(group) ?? { handlers: null, place: null };
    this.#groups.set(group, Object.assign(topic, { state: "live", stale: true }));
    this.#reconcile(group);
  }

  #message(frame) {
    const topic = this.#live(frame.group);
    if (!topic || frame.offset <= topic.place.offset) return;
    if (frame.offset > topic.place.offset + 1 && !this.#overHole(frame, topic)) return;
    topic.place = { epoch: topic.place.epoch, offset: frame.offset };
    this.#call(topic.handlers.message, frame);
  }

  /** Ask again for what was skipped, and tell whether that has been tried already: then there is a gap instead. */
  #overHole({ group, offset }, topic) {
    if (topic.healed === topic.place) {
      this.#call(topic.handlers.gap, { type: "gap", group, epoch: topic.place.epoch, offset: offset - 1 });
      return this.#live(group) === topic;
    }
    this.#complain(new ShardsError("hole", `${group}: ${offset} came after ${topic.place.offset}`, { group }));
    topic.healed = topic.place;
    topic.stale = true;
    this.#reconcile(group);
    return false;
  }

  #gap(frame) {
    const asked = this.#groups.get(frame.group);
    if (asked?.state === "asked" && asked.found && same(frame, asked.found)) return this.#begin(asked, asked.found);
    const topic = this.#live(frame.group);
    if (!topic || same(frame, topic.place)) return;
    topic.place = { epoch: frame.epoch, offset: frame.offset };
    this.#call(topic.handlers.gap, frame);
  }

  // Questions

  #ask(frame) {
    checkName(frame.group);
    this.#requests.push({ frame, sent: false });
    this.#reconcile(frame.group);
  }

  /** The question about a group whose answer is awaited. */
  #requestOf(group) { return this.#requests.find((request) => request.sent && request.frame.group === group); }

  #sendRequest(group) {
    const request = this.#requests.find((one) => one.frame.group === group);
    if (!request || !this.#online) return;
    request.sent = true;
    this.#say(request.frame);
  }

  /** Take the question about a group that has its answer now, of this type. */
  #answered({ type, group }) {
    const request = this.#requestOf(group);
    if (request?.frame.type !== type) return null;
    this.#requests.splice(this.#requests.indexOf(request), 1);
    if (request.doubt) this.#startAnew(group);
    return request.frame;
  }

  /** Where a history does not follow on the place asked from, a gap comes right after it, which is no subscription's. */
  #history(frame) {
    const since = this.#answered(frame)?.since;
    const first = frame.messages[0];
    const before = first ? first.offset - 1 : frame.offset;
    if (since && (since.epoch !== frame.epoch || since.offset !== before)) {
      this.#pastGap = { group: frame.group, epoch: frame.epoch, offset: before };
    }
    this.#reconcile(frame.group);
    this.#call(this.#handlers.history, { ...frame, gap: this.#pastGap });
  }

  /** An answer has names, at least ours where we follow the group; where too many came and went, there is a count only. */
  #presence(frame) {
    if (frame.members.length || !frame.count) {
      this.#answered(frame);
      this.#reconcile(frame.group);
    }
    this.#call(this.#handlers.presence, frame);
  }

  // Publishes

  /** Send what waits, oldest first, as far as the window goes. */
  #pump() {
    if (!this.#online || this.#held) return;
    for (const publish of this.#outbox.values()) {
      if (this.#underway >= WINDOW) return;
      if (publish.sentAt !== null) continue;
      if (publish.unsureSince !== null && Date.now() - publish.unsureSince > RESEND_MS) {
        // Its dedupe mark may be gone: sent again, it could be doubled.
        this.#outbox.delete(publish.id);
        publish.reject(new ShardsError("unconfirmed", `no ack for ${publish.id}: it may be published or not`, { id: publish.id }));
        continue;
      }
      publish.sentAt = Date.now();
      this.#underway++;
      this.#socket.send(publish.text);
    }
  }

  #settle(id, how) {
    const publish = this.#outbox.get(id);
    if (!publish) return;
    this.#outbox.delete(id);
    if (publish.sentAt !== null) this.#underway--;
    how(publish);
    this.#pump();
  }

  /** What was too big for a frame closed the connection, and would again. */
  #refuseLargest() {
    const sent = [...this.#outbox.values()].filter((publish) => publish.sentAt !== null);
    const largest = sent.sort((one, other) => other.text.length - one.text.length)[0];
    if (largest) this.#settle(largest.id, (p) => p.reject(new ShardsError("too_large", "too big for the service", { id: p.id })));
  }

  // Errors

  #refused(frame) {
    const error = new ShardsError(frame.code, frame.message, frame);
    if (frame.code === "not_subscribed") return;   // an `unsubscribe` that came too late
    if (frame.id != null) this.#publishRefused(frame, error);
    else if (frame.code === "already_subscribed") this.#alreadySubscribed(frame);
    else this.#commandRefused(frame, error);
  }

  #publishRefused({ id, code }, error) {
    const publish = this.#outbox.get(id);
    if (!publish) return;
    if (!TRY_AGAIN.has(code)) return this.#settle(id, () => publish.reject(error));
    this.#complain(error);
    if (publish.sentAt !== null) this.#underway--;
    unsend(publish, code === "unavailable");
    this.#hold();
  }

  /** The subscriptions without an answer that an error may be about: name and topic. */
  #askedOf(frame) {
    return [...this.#groups].filter(([name, topic]) => topic.state === "asked" && (frame.group ?? name) === name);
  }

  /** A `subscribe` was in vain: the URL has the group subscribed, or an `unsubscribe` was refused. */
  #alreadySubscribed(frame) {
    const asked = this.#askedOf(frame);
    const group = frame.group ?? (asked.length === 1 ? asked[0][0] : null);
    if (group === null) return;
    const topic = this.#groups.get(group);
    // The URL's was taken for ours, and does as well where we need nothing that a URL does not ask for.
    if (topic?.state === "live" && topic.handlers && !topic.events) return;
    if (topic?.vain) this.#hold();   // to end what it has was in vain as well
    if (topic) topic.vain = true;
    this.#startAnew(group);
  }

  #commandRefused(frame, error) {
    const asked = this.#askedOf(frame);
    const [group, topic] = asked.length === 1 ? asked[0] : [frame.group, this.#groups.get(frame.group)];
    const request = asked.length ? null : this.#requestOf(frame.group);
    if (request) return this.#requestRefused(request, error);
    // If nothing is asked, it is the answer to our `subscribe`: the `subscribed` taken for that was of another one, and may
    // have ended.
    const mistaken = !asked.length && topic?.handlers && topic.state === "live";
    if (TRY_AGAIN.has(frame.code)) {
      this.#hold();
      // An `unsubscribe` has no answer but such a refusal; then the service still has the group as it was. So it has what
      // the URL subscribed, if that is what we heard of.
      if (group && (asked.length ? topic.found : mistaken || frame.code === "rate_limited")) this.#startAnew(group);
      else if (asked.length === 1) Object.assign(topic, { state: "none", doubt: true });
      this.#complain(error);
    } else if (asked.length === 1) {
      const { handlers } = topic;
      topic.handlers = topic.place = null;
      topic.state = topic.found ? "live" : "none";
      this.#reconcile(group);
      this.#call(handlers?.error ?? this.#handlers.error, error);
    } else {
      if (mistaken) this.#startAnew(group);
      this.#complain(error);
    }
  }

  #requestRefused(request, error) {
    if (TRY_AGAIN.has(error.code)) {
      request.sent = false;
      // The service may have refused the `unsubscribe` before, or a `subscribe` whose answer seemed to be there.
      request.doubt = true;
      this.#hold();
      return this.#complain(error);
    }
    this.#answered(request.frame);
    this.#reconcile(request.frame.group);
    this.#complain(error);
  }

  /** Say nothing for a while; what waits keeps its order. */
  #hold() {
    this.#held = true;
    this.#after("hold", HOLD_MS * (1 + Math.random()), () => {
      this.#held = false;
      this.#reconcileAll();
      this.#pump();
    });
  }
}

const NAME = /^[A-Za-z0-9_.:-]{1,100}$/;

const ID = /^\P{Surrogate}{1,64}$/u;   // characters, not UTF-16 units; half a pair is none

const isName = (group) => typeof group === "string" && NAME.test(group);

const isId = (id) => typeof id === "string" && ID.test(id);

const badName = (group) => new ShardsError("bad_name", `no group can be called ${String(group)}`, { group });

const badId = (id) => new ShardsError("bad_id", `an id is a text of 1-64 characters, not ${String(id).slice(0, 80)}`, { id });

function checkName(group) {
  if (!isName(group)) throw badName(group);
}

/** The frame of a publish; throws what JSON throws where it cannot say `data`. */
function publishFrame(group, id, data) {
  const said = JSON.stringify(data);
  if (said === undefined) throw new TypeError("JSON cannot say this");
  return `{"type":"publish","group":${JSON.stringify(group)},"id":${JSON.stringify(id)},"data":${said}}`;
}

const same = (one, other) => one?.epoch === other?.epoch && one?.offset === other?.offset;

const closed = () => new ShardsError("closed", "the client is closed");

/** 128 random bits; `crypto.randomUUID` exists on secure origins only. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unsend(publish, unsure) {
  if (unsure) publish.unsureSince ??= publish.sentAt;
  publish.sentAt = null;
}
