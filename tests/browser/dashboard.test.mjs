// How the dashboard draws its charts: node --test tests/browser
import assert from "node:assert/strict";
import { test } from "node:test";
import { paths } from "../../shards/server/dashboard/static/dashboard.js";

const NOW = 1_000_000;
const ago = (...seconds) => seconds.map((one) => ({ at: NOW - 1000 * one, value: 50 }));

test("a lone point is a dot, at once", () => {
  assert.equal(paths(ago(0), NOW, 100).dots, "M240.0,24.0h0");
});

test("points of one second after the other are a line, and no dots", () => {
  assert.deepEqual(paths(ago(2, 1, 0), NOW, 100), { lines: "M236.0,24.0L238.0,24.0L240.0,24.0", dots: "" });
});

test("where nothing was told for five seconds the line ends, and another begins", () => {
  assert.deepEqual(paths(ago(7, 6, 1, 0), NOW, 100), { lines: "M226.0,24.0L228.0,24.0M238.0,24.0L240.0,24.0", dots: "" });
});

test("a point between two gaps is a dot, and so is the first after one", () => {
  assert.equal(paths(ago(61, 60, 30, 0), NOW, 100).dots, "M180.0,24.0h0M240.0,24.0h0");
});

test("a point before a gap is a dot where nothing was before it", () => {
  assert.equal(paths(ago(60, 1, 0), NOW, 100).dots, "M120.0,24.0h0");
});

test("nothing is drawn of nothing", () => {
  assert.deepEqual(paths([], NOW, 100), { lines: "", dots: "" });
});
