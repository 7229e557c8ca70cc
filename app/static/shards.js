/**
 * A client that loses nothing: reconnects with full jitter, resumes each group from its place, and keeps every publish
 * until it is acked. No dependencies.
 *
 *   import { connect } from "./shards.js";
 *   const client = connect("/ws/");
 *   client.subscribe("lobby", { message: (m) => console.log(m.offset, m.data), gap: () => reload() });
 *   await client.publish("lobby", { text: "hello" });   // resolves with the offset once it is in the log
 *
 * The wire protocol is in docs/design.md.
 */

const FIRST_DELAY_MS = 250;
const LAST_DELAY_MS = 10_000;
const WINDOW = 32;   // publishes on their way at once: who comes back with a full outbox is not taken for a flood

/** Full jitter: anywhere up to the exponential bound, so that a crowd comes back spread out. */
export function delay(attempt, random = Math.random) {
  return random() * Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
}

/** Connect to `url` (absolute, or a path on this host); gives a Client at once. */
export function connect(url, handlers = {}) {
  return new Client(new URL(url, location.href.replace(/^http/, "ws")), handlers);
}

class Client {
  #url; #handlers; #socket = null; #session = null; #attempt = 0; #closed = false; #timer = 0;
  #groups = new Map();   // group → { handlers, place }
  #outbox = new Map();   // id → { frame, resolve, reject, sent }, in the order they were published
  #underway = 0;

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    this.#open();
  }

  /** Follow a group. Handlers: message(frame), subscribed(frame), gap(frame). */
  subscribe(group, handlers) {
    this.#groups.set(group, { handlers, place: null });
    this.#say({ type: "subscribe", group });
  }

  unsubscribe(group) {
    if (this.#groups.delete(group)) this.#say({ type: "unsubscribe", group });
  }

  /** Publish; resolves with the message's offset once it is in the log, however often that takes to try. */
  publish(group, data, id = crypto.randomUUID?.() ?? String(Math.random()).slice(2)) {
    const frame = { type: "publish", group, id, data };
    return new Promise((resolve, reject) => {
      this.#outbox.set(id, { frame, resolve, reject, sent: false });
      this.#send();
    });
  }

  /** Drop the connection as a failing network would; the client comes back by itself. */
  drop() { this.#socket?.close(4000, "dropped"); }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  #open() {
    const url = new URL(this.#url);
    if (this.#session) url.searchParams.set("session", this.#session);
    const socket = (this.#socket = new WebSocket(url));
    socket.onmessage = (event) => this.#hear(JSON.parse(event.data), socket);
    socket.onclose = (event) => this.#lost(socket, event);
  }

  #lost(socket, event) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    this.#handlers.offline?.(event);
    if (!this.#closed) this.#timer = setTimeout(() => this.#open(), delay(this.#attempt++));
  }

  #say(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN && this.#socket.welcomed) this.#socket.send(JSON.stringify(frame));
  }

  #hear(frame, socket) {
    const group = this.#groups.get(frame.group);
    switch (frame.type) {
      case "welcome": return this.#welcome(frame, socket);
      case "subscribed":
        if (group) group.place = { epoch: frame.epoch, offset: frame.offset };
        return group?.handlers.subscribed?.(frame);
      case "message":
        if (group) group.place.offset = frame.offset;
        return group?.handlers.message?.(frame);
      case "gap":
        if (group) group.place = { epoch: frame.epoch, offset: frame.offset };
        return group?.handlers.gap?.(frame);
      case "ack": return this.#settle(frame.id, (waiting) => waiting.resolve(frame.offset));
      case "reconnect":
        return setTimeout(() => socket === this.#socket && socket.close(4001, "asked to"), Math.random() * frame.within_ms);
      case "error":
        this.#handlers.error?.(frame);
        // Not stored, and the server says to try again: it stays in the outbox, under the same id.
        if (frame.code === "unavailable" || frame.code === "rate_limited") return this.#again(frame);
        return this.#settle(frame.id, (waiting) => waiting.reject(Object.assign(new Error(frame.message), frame)));
      default: return this.#handlers[frame.type]?.(frame);
    }
  }

  #welcome(frame, socket) {
    socket.welcomed = true;
    this.#attempt = 0;
    this.#session = frame.session;
    for (const [group, { place }] of this.#groups) this.#say({ type: "subscribe", group, ...(place && { since: place }) });
    for (const waiting of this.#outbox.values()) waiting.sent = false;
    this.#underway = 0;
    this.#send();
    this.#handlers.online?.(frame);
  }

  #settle(id, how) {
    const waiting = this.#outbox.get(id);
    if (!waiting) return;
    this.#outbox.delete(id);
    if (waiting.sent) this.#underway--;
    how(waiting);
    this.#send();
  }

  /** Send what waits, oldest first, as far as the window goes. */
  #send() {
    if (!this.#socket?.welcomed) return;
    for (const waiting of this.#outbox.values()) {
      if (this.#underway >= WINDOW) return;
      if (waiting.sent) continue;
      waiting.sent = true;
      this.#underway++;
      this.#say(waiting.frame);
    }
  }

  /** Say again a little later what the server had no time for: a publish, or a subscription. */
  #again({ id, group }) {
    const socket = this.#socket;
    const waiting = this.#outbox.get(id);
    setTimeout(() => {
      if (socket !== this.#socket) return;   // all is said anew with the next welcome
      if (waiting?.sent) {
        waiting.sent = false;
        this.#underway--;
        this.#send();
      } else if (!id && this.#groups.has(group)) {
        const { place } = this.#groups.get(group);
        this.#say({ type: "subscribe", group, ...(place && { since: place }) });
      }
    }, 500 + delay(3));
  }
}
