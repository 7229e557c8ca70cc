// The dashboard: draws what /fleet/live tells once a second. It asks for nothing and changes nothing.
// What is there stays there, and only what differs is changed: who reads it with a screen reader, or has a line
// selected, is not thrown out of it each second.

const KEPT_MS = 120_000; // of the small charts
const HEADROOM = 1.1; // above the most there was, so that a steady line is not taken for the frame
const MOVED_MS = 10_000; // for how long a slot that has moved is marked
const STALE_MS = 5_000; // silence after which what is shown is old
const LOST_MS = 15_000; // silence after which the connection is taken for dead
const COLUMNS = 64;

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const perSecond = (value) => `${whole.format(value)}/s`;
const milliseconds = (value) => `${tenths.format(value)} ms`;
const megabytes = (bytes) => `${whole.format(bytes / 2 ** 20)} MB`;
const history = { rate: [], p99: [] };
const owners = { of: [], movedAt: new Map(), cells: [] };

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
  const colors = serving(seen);
  return colors.length ? `${colors.join(" and ")} serves` : "";
}

function serving({ replicas: all }) {
  return [...new Set(all.filter(({ state }) => state === "active").map(({ color }) => color))];
}

function wrong(seen) {
  const nobody = serving(seen).length ? [] : ["nobody serves"];
  return [...nobody, ...(seen.down ?? []).map((name) => `${name} does not answer`), ...(seen.missing ?? []).map((name) => `${name} is missing`)];
}

function terms(parent, entries) {
  const make = ([term]) => element("div", {}, element("dt", {}, term), element("dd"));
  list(parent, entries, ([term]) => term, make, (child, [, value, alarm = ""]) => {
    put(child.lastChild, value);
    mark(child, "class", alarm);
  });
}

function figures({ connections, rates, latency_ms: latency }) {
  const ms = (value) => (latency ? milliseconds(value) : "–");
  terms(byId("figures"), [
    ["Sockets", whole.format(connections)],
    ["Delivered", rates ? perSecond(rates.delivered) : "–"],
    ["Published", rates ? perSecond(rates.published) : "–"],
    ["Connects", rates ? perSecond(rates.connects) : "–"],
    ["Delivery p50", ms(latency?.p50)],
    ["Delivery p99", ms(latency?.p99)],
  ]);
}

/** The least of 1, 2, 5, 10, 20, … that is not less: what a scale ends with. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** The paths of points by their time: lines, which end where nothing was told for a while, and a dot for a point with no neighbor. */
export function paths(points, now, top) {
  const goesOn = (index) => index > 0 && index < points.length && points[index].at - points[index - 1].at < STALE_MS;
  const places = points.map(({ at, value }) => `${(240 * (1 - (now - at) / KEPT_MS)).toFixed(1)},${(48 * (1 - value / top)).toFixed(1)}`);
  return {
    lines: places.map((place, index) => `${goesOn(index) ? "L" : "M"}${place}`).join(""),
    dots: places.filter((_, index) => !goesOn(index) && !goesOn(index + 1)).map((place) => `M${place}h0`).join(""),
  };
}

function chart(id, points, text) {
  if (!points.length) return;
  const values = points.map(({ value }) => value);
  const most = Math.max(...values);
  const top = ceiling(HEADROOM * most || 1);
  const { lines, dots } = paths(points, performance.now(), top);
  const svg = byId(id);
  mark(svg.querySelector("path"), "d", lines);
  mark(svg.querySelector(".dots") ?? svg.appendChild(drawn("path", { class: "dots" })), "d", dots);
  show(`${id}-text`, `now ${text(values.at(-1))}, at most ${text(most)}`);
  show(`${id}-top`, text(top));
}

function keep(points, value) {
  const now = performance.now();
  if (value !== undefined) points.push({ at: now, value });
  while (points.length && now - points[0].at > KEPT_MS) points.shift();
}

function replicaRow() {
  const cell = (label, kind = "", ...children) => element("td", { role: "cell", class: kind, "data-label": label }, ...children);
  return element(
    "tr", { role: "row" }, element("th", { role: "rowheader", scope: "row" }), cell("State"), cell("Sockets", "number"),
    cell("", "", element("meter")), cell("CPU", "number"), cell("Memory", "number"), cell("Release"),
  );
}

/** Those that tell of themselves, and those that should. */
function allReplicas({ replicas: told, missing = [] }) {
  const gone = missing.map((name) => ({ name, color: name.split("-")[0], state: "missing", down: true }));
  return [...told, ...gone].sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
}

function replicas(seen) {
  const known = (value, text) => (value === undefined ? "–" : text(value));
  list(byId("replicas"), allReplicas(seen), ({ name }) => name, replicaRow, (row, one) => {
    const share = seen.connections ? (one.connections ?? 0) / seen.connections : 0;
    const [name, state, sockets, spread, cpu, memory, release] = row.children;
    mark(row, "class", `${one.color}${one.down ? " down" : ""}`);
    put(name, one.name);
    put(state, one.state);
    put(sockets, known(one.connections, whole.format));
    mark(spread.firstChild, "value", share);
    mark(spread.firstChild, "aria-label", `${one.name}: ${whole.format(share * 100)} %`);
    put(cpu, known(one.cpu_percent, (value) => `${value} %`));
    put(memory, known(one.rss_bytes, megabytes));
    put(release, one.release ?? "–");
  });
}

function ring(told, down) {
  if (!told) return show("ring-text", "there is no slot table yet");
  const of = told.runs.flatMap(([shard, length]) => Array(length).fill(told.shards[shard]));
  moves(of);
  const moving = owners.movedAt.size ? `, ${owners.movedAt.size} slots have moved in the last ten seconds` : "";
  show("ring-text", `${of.length} slots on ${told.shards.length} shards, version ${told.version}${moving}`);
  of.forEach((owner, slot) => paint(told.shards.indexOf(owner), slot, down.includes(owner)));
  shards(told.shards, of, down);
}

/** Remember which slots have another owner than a view ago, for as long as they are marked. */
function moves(of) {
  const now = performance.now();
  for (const [slot, at] of owners.movedAt) if (now - at > MOVED_MS) owners.movedAt.delete(slot);
  of.forEach((owner, slot) => {
    if (owners.of.length && owners.of[slot] !== owner) owners.movedAt.set(slot, now);
  });
  owners.of = of;
}

function paint(shard, slot, down) {
  const place = { x: slot % COLUMNS, y: Math.floor(slot / COLUMNS), width: 0.9, height: 0.9 };
  owners.cells[slot] ??= byId("ring").appendChild(drawn("rect", place));
  mark(owners.cells[slot], "class", `shard-${shard % 8}${owners.movedAt.has(slot) ? " moved" : ""}${down ? " down" : ""}`);
}

function shards(names, of, down) {
  const make = () => element("li", {}, element("span", { "aria-hidden": "true" }), document.createTextNode(""));
  list(byId("shards"), names, (name) => name, make, (child, name) => {
    const amiss = down.includes(name);
    mark(child, "class", amiss ? "down" : "");
    mark(child.firstChild, "class", `key shard-${names.indexOf(name) % 8}`);
    put(child.lastChild, `${name}: ${of.filter((owner) => owner === name).length} slots${amiss ? ", does not answer" : ""}`);
  });
}

function events(all) {
  const make = ({ at_ms: at, text }) => element("li", {}, element("time", { datetime: new Date(at).toISOString() }), ` ${text}`);
  list(byId("events"), all, ({ at_ms: at, text }) => `${at} ${text}`, make, (child, { at_ms: at }) => put(child.firstChild, moment(new Date(at))));
}

/** The time, and the day where it is another: at four in the morning yesterday's events are not today's. */
function moment(when) {
  const today = when.toDateString() === new Date().toDateString();
  return today ? when.toLocaleTimeString() : when.toLocaleString();
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

function title(amiss) {
  const wanted = amiss ? `\u26A0 ${amiss}` : "fleet";
  if (document.title !== wanted) document.title = wanted;
}

function old(why) {
  document.body.classList.add("stale");
  title(why);
  show("state", `${why}; what is below is old`);
}

function view(seen) {
  if (seen.away) return old(seen.away);
  const amiss = wrong(seen);
  document.body.classList.remove("stale");
  document.body.classList.toggle("amiss", amiss.length > 0);
  // What is wrong comes first, here and in the name of a tab that nobody looks at.
  show("state", [...amiss, goingOn(seen)].filter(Boolean).join("; "));
  title(amiss[0]);
  figures(seen);
  keep(history.rate, seen.rates?.delivered);
  keep(history.p99, seen.latency_ms?.p99);
  chart("rate", history.rate, perSecond);
  chart("p99", history.p99, milliseconds);
  replicas(seen);
  ring(seen.ring, seen.down ?? []);
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

// Who tests what is pure has no page.
if (globalThis.document) live();
