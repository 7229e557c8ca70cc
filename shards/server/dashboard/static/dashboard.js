// The dashboard: draws what /fleet/live tells once a second. It asks for nothing and changes nothing.

const KEPT = 120; // seconds of the small charts
const MOVED_MS = 10_000; // for how long a slot that has moved is marked
const COLUMNS = 64;

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const megabytes = (bytes) => `${whole.format(bytes / 2 ** 20)} MB`;
const history = { rate: [], p99: [] };
const owners = { of: [], movedAt: new Map() };

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

// Text that has not changed is left alone: a screen reader would read it out again.
function show(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function stateOf(seen) {
  const { cutover } = seen;
  if (cutover) {
    const why = cutover.failure ? ` (${cutover.failure})` : "";
    return `${cutover.verb} from ${cutover.old} to ${cutover.new}: ${cutover.step}${why}`;
  }
  if (seen.resharding) return "slots are moving";
  const serving = new Set(seen.replicas.filter(({ state }) => state === "active").map(({ color }) => color));
  return serving.size ? `${[...serving].join(" and ")} serves` : "nobody serves";
}

function terms(list, entries) {
  list.replaceChildren(
    ...entries.map(([term, value, mark = ""]) =>
      element("div", { class: mark }, element("dt", {}, term), element("dd", {}, value)),
    ),
  );
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

function replicas({ replicas: all, connections }) {
  byId("replicas").replaceChildren(
    ...all.map((one) => {
      const share = connections ? one.connections / connections : 0;
      return element(
        "tr",
        { class: one.color },
        element("th", { scope: "row" }, one.name),
        element("td", {}, one.state),
        element("td", { class: "number" }, whole.format(one.connections)),
        element("td", {}, element("meter", { value: share, "aria-label": `${one.name}: ${whole.format(share * 100)} %` })),
        element("td", { class: "number" }, `${one.cpu_percent} %`),
        element("td", { class: "number" }, megabytes(one.rss_bytes)),
        element("td", {}, one.release),
      );
    }),
  );
}

function ring(told) {
  if (!told) return show("ring-text", "there is no slot table yet");
  const of = told.runs.flatMap(([shard, length]) => Array(length).fill(told.shards[shard]));
  const now = performance.now();
  of.forEach((owner, slot) => {
    if (owners.of.length && owners.of[slot] !== owner) owners.movedAt.set(slot, now);
  });
  for (const [slot, at] of owners.movedAt) if (now - at > MOVED_MS) owners.movedAt.delete(slot);
  owners.of = of;
  const moving = owners.movedAt.size ? `, ${owners.movedAt.size} slots have moved in the last ten seconds` : "";
  show("ring-text", `${of.length} slots on ${told.shards.length} shards, version ${told.version}${moving}`);
  byId("ring").replaceChildren(...of.map((owner, slot) => cell(told.shards.indexOf(owner), slot)));
  byId("shards").replaceChildren(
    ...told.shards.map((name, index) => {
      const count = of.filter((owner) => owner === name).length;
      return element("li", {}, element("span", { class: `key shard-${index % 8}`, "aria-hidden": "true" }), `${name}: ${count} slots`);
    }),
  );
}

function cell(shard, slot) {
  const moved = owners.movedAt.has(slot) ? " moved" : "";
  const place = { x: slot % COLUMNS, y: Math.floor(slot / COLUMNS), width: 0.9, height: 0.9 };
  return drawn("rect", { ...place, class: `shard-${shard % 8}${moved}` });
}

function events(all) {
  const lines = all.map(({ at_ms: at, text }) => {
    const when = new Date(at);
    return element("li", {}, element("time", { datetime: when.toISOString() }, when.toLocaleTimeString()), ` ${text}`);
  });
  const list = byId("events");
  const before = list.firstChild?.textContent;
  if (lines.length !== list.children.length || lines[0]?.textContent !== before) list.replaceChildren(...lines);
}

function reports(all) {
  byId("reports-part").hidden = !all.length;
  byId("reports").replaceChildren(
    ...all.map((run) => {
      const wrong = run.wrong ? `, ${run.wrong} lost, doubled or out of order` : "";
      const text = ` ${run.scenario}: ${whole.format(run.connections)} sockets, ${whole.format(run.delivered_per_s)}/s, p99 ${run.p99_ms} ms${wrong}`;
      return element("li", {}, element("strong", { class: run.verdict }, run.verdict), text);
    }),
  );
}

function view(seen) {
  if (seen.away) {
    document.body.classList.add("stale");
    return show("state", `${seen.away}; what is below is old`);
  }
  document.body.classList.remove("stale");
  show("state", stateOf(seen));
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
  socket.onmessage = ({ data }) => view(JSON.parse(data));
  socket.onclose = () => {
    document.body.classList.add("stale");
    show("state", "no connection, trying again; what is below is old");
    setTimeout(live, 500 + 1500 * Math.random());
  };
}

live();
