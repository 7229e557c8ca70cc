// The dashboard: draws what /fleet/live tells once a second. It asks for nothing and changes nothing.
// What is there stays there, and only what differs is changed: who reads it with a screen reader, or has a line
// selected, is not thrown out of it each second.

const KEPT = 120; // seconds of the small charts
const MOVED_MS = 10_000; // for how long a slot that has moved is marked
const STALE_MS = 5_000; // silence after which what is shown is old
const LOST_MS = 15_000; // silence after which the connection is taken for dead
const COLUMNS = 64;

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const megabytes = (bytes) => `${whole.format(bytes / 2 ** 20)} MB`;
const history = { rate: [], p99: [] };
const owners = { of: [], version: null, movedAt: new Map(), cells: [] };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const show = (id, text) => put(byId(id), text);

/** Have a list show `items`: `make` a child for one whose `key` was not there, and `fill` each. */
function list(parent, items, key, make, fill) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const used = new Set();
  items.forEach((item, at) => {
    let name = key(item);
    while (used.has(name)) name += "+";
    used.add(name);
    const child = before.get(name) ?? make(item);
    before.delete(name);
    mark(child, "data-key", name);
    fill(child, item);
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
  for (const child of before.values()) child.remove();
}

function goingOn(seen) {
  const { cutover } = seen;
  if (cutover) return `${cutover.verb} from ${cutover.old} to ${cutover.new}: ${cutover.step}`;
  if (seen.resharding) return "slots are moving";
  const serving = new Set(seen.replicas.filter(({ state }) => state === "active").map(({ color }) => color));
  return serving.size ? `${[...serving].join(" and ")} serves` : "nobody serves";
}

function wrong(seen) {
  return [...(seen.down ?? []).map((name) => `${name} does not answer`), ...(seen.missing ?? []).map((name) => `${name} is missing`)];
}

function terms(parent, entries) {
  const make = ([term]) => element("div", {}, element("dt", {}, term), element("dd"));
  list(parent, entries, ([term]) => term, make, (child, [, value, alarm = ""]) => {
    put(child.lastChild, value);
    mark(child, "class", alarm);
  });
}

function figures({ connections, rates, latency_ms: latency }) {
  const ms = (value) => (latency ? `${value} ms` : "–");
  terms(byId("figures"), [
    ["Sockets", whole.format(connections)],
    ["Delivered", rates ? `${whole.format(rates.delivered)}/s` : "–"],
    ["Published", rates ? `${whole.format(rates.published)}/s` : "–"],
    ["Connects", rates ? `${whole.format(rates.connects)}/s` : "–"],
    ["Delivery p50", ms(latency?.p50)],
    ["Delivery p99", ms(latency?.p99)],
  ]);
}

function chart(id, values, unit) {
  const most = Math.max(...values, 1e-9);
  const points = values.map((value, at) => `${(at * 240) / (KEPT - 1)},${46 - (44 * value) / most}`);
  byId(id).querySelector("polyline").setAttribute("points", points.join(" "));
  show(`${id}-text`, `now ${values.at(-1) ?? 0}${unit}, at most ${most.toFixed(1)}${unit}`);
}

function keep(values, value) {
  values.push(value);
  if (values.length > KEPT) values.shift();
}

function replicaRow() {
  const number = () => element("td", { class: "number" });
  return element(
    "tr", {}, element("th", { scope: "row" }), element("td"), number(), element("td", {}, element("meter")), number(),
    number(), element("td"),
  );
}

function replicas({ replicas: all, connections }) {
  list(byId("replicas"), all, ({ name }) => name, replicaRow, (row, one) => {
    const share = connections ? one.connections / connections : 0;
    const [name, state, sockets, spread, cpu, memory, release] = row.children;
    mark(row, "class", one.color);
    put(name, one.name);
    put(state, one.state);
    put(sockets, whole.format(one.connections));
    mark(spread.firstChild, "value", share);
    mark(spread.firstChild, "aria-label", `${one.name}: ${whole.format(share * 100)} %`);
    put(cpu, `${one.cpu_percent} %`);
    put(memory, megabytes(one.rss_bytes));
    put(release, one.release);
  });
}

function ring(told) {
  if (!told) return show("ring-text", "there is no slot table yet");
  const marked = owners.movedAt.size;
  const now = performance.now();
  for (const [slot, at] of owners.movedAt) if (now - at > MOVED_MS) owners.movedAt.delete(slot);
  if (told.version === owners.version && owners.movedAt.size === marked) return undefined;
  const of = told.runs.flatMap(([shard, length]) => Array(length).fill(told.shards[shard]));
  of.forEach((owner, slot) => {
    if (owners.of.length && owners.of[slot] !== owner) owners.movedAt.set(slot, now);
  });
  owners.of = of;
  owners.version = told.version;
  const moving = owners.movedAt.size ? `, ${owners.movedAt.size} slots have moved in the last ten seconds` : "";
  show("ring-text", `${of.length} slots on ${told.shards.length} shards, version ${told.version}${moving}`);
  of.forEach((owner, slot) => paint(told.shards.indexOf(owner), slot));
  shards(told.shards, of);
}

function paint(shard, slot) {
  const place = { x: slot % COLUMNS, y: Math.floor(slot / COLUMNS), width: 0.9, height: 0.9 };
  owners.cells[slot] ??= byId("ring").appendChild(drawn("rect", place));
  mark(owners.cells[slot], "class", `shard-${shard % 8}${owners.movedAt.has(slot) ? " moved" : ""}`);
}

function shards(names, of) {
  const make = () => element("li", {}, element("span", { "aria-hidden": "true" }), document.createTextNode(""));
  list(byId("shards"), names, (name) => name, make, (child, name) => {
    mark(child.firstChild, "class", `key shard-${names.indexOf(name) % 8}`);
    put(child.lastChild, `${name}: ${of.filter((owner) => owner === name).length} slots`);
  });
}

function events(all) {
  const make = ({ at_ms: at, text }) => {
    const when = new Date(at);
    return element("li", {}, element("time", { datetime: when.toISOString() }, when.toLocaleTimeString()), ` ${text}`);
  };
  list(byId("events"), all, ({ at_ms: at, text }) => `${at} ${text}`, make, () => {});
}

function reports(all) {
  byId("reports-part").hidden = !all.length;
  const make = (run) => {
    const amiss = run.wrong ? `, ${run.wrong} lost, doubled or out of order` : "";
    const text = ` ${run.scenario}: ${whole.format(run.connections)} sockets, ${whole.format(run.delivered_per_s)}/s, p99 ${run.p99_ms} ms${amiss}`;
    return element("li", {}, element("strong", { class: run.verdict }, run.verdict), text);
  };
  list(byId("reports"), all, (run) => `${run.started} ${run.scenario}`, make, () => {});
}

function old(why) {
  document.body.classList.add("stale");
  show("state", `${why}; what is below is old`);
}

function view(seen) {
  if (seen.away) return old(seen.away);
  const amiss = wrong(seen);
  document.body.classList.remove("stale");
  document.body.classList.toggle("amiss", amiss.length > 0);
  show("state", [goingOn(seen), ...amiss].join("; "));
  figures(seen);
  keep(history.rate, seen.rates?.delivered ?? 0);
  keep(history.p99, seen.latency_ms?.p99 ?? 0);
  chart("rate", history.rate, "/s");
  chart("p99", history.p99, " ms");
  replicas(seen);
  ring(seen.ring);
  terms(byId("trouble"), Object.entries(seen.trouble).map(([what, count]) => [what, whole.format(count), count ? "some" : ""]));
  events(seen.events);
  reports(seen.reports);
}

function live() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/fleet/live`);
  const timers = [];
  const again = () => {
    timers.forEach(clearTimeout);
    socket.onmessage = socket.onclose = null;
    socket.close();
    old("no connection, trying again");
    setTimeout(live, 500 + 1500 * Math.random());
  };
  const wait = () => {
    timers.splice(0).forEach(clearTimeout);
    timers.push(setTimeout(old, STALE_MS, "nothing was heard for five seconds"), setTimeout(again, LOST_MS));
  };
  socket.onmessage = ({ data }) => {
    wait();
    view(JSON.parse(data));
  };
  socket.onclose = again;
  wait();
}

live();
