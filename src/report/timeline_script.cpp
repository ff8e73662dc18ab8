#include "report/timeline_script.h"

namespace steelyard::report {

const char* const kTimelineStyle = R"css(
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #57606a; --paper: #ffffff;
  --line: #d0d7de; --warn: #b3261e;
  --c0: #2f6fb3; --c1: #3f8f4f; --c2: #c28a00; --c3: #a4448f; --c4: #1f8f9e;
  --c5: #6f7fd0; --c6: #8ab66b; --c7: #b8b0a2; --c8: #7d7468; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --quiet: #9aa5b1; --paper: #14181d; --line: #39424d; --warn: #ff8a80;
    --c0: #5b9be0; --c1: #62b873; --c2: #e0b040; --c3: #cf7abc; --c4: #4fbccb;
    --c5: #97a4ea; --c6: #aad28d; --c7: #6c665d; --c8: #9a9184; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 1.2rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .3rem; }
#say { font-size: 1.05rem; margin: 0 0 .8rem; }
#say.over { color: var(--warn); }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; }
#chart { flex: 1 1 560px; min-width: 300px; }
#side { flex: 0 1 330px; }
svg { width: 100%; height: auto; display: block; cursor: crosshair; }
svg:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
text { fill: var(--quiet); font-size: 14px; }
.grid { stroke: var(--line); } .limit { stroke: var(--warn); stroke-dasharray: 6 4; }
.limit-text { fill: var(--warn); font-weight: 600; }
.at { stroke: var(--ink); } .phase { stroke: var(--paper); fill: var(--line); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: .12rem .4rem .12rem 0; text-align: left; font-weight: 400; }
td + td { text-align: right; } tfoot td { border-top: 1px solid var(--line); font-weight: 600; }
.box { display: inline-block; width: .8em; height: .8em; margin-right: .5em; }
#where { min-height: 3.2em; overflow-wrap: anywhere; } .quiet { color: var(--quiet); }
label, button, select { font: inherit; }
)css";

const char* const kTimelineScript = R"js(
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id), NS = "http://www.w3.org/2000/svg";
const W = 1000, H = 420, L = 74, R = 8, T = 22, B = 64;
let rank, totals, peak, at;
const size = (b) => {
  for (const [u, n] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024]]) {
    if (b >= n) return (b / n).toFixed(1) + " " + u;
  }
  return b + " B";
};
const words = (name) => name.replaceAll("_", " ");
const part = (list, i) => data.strings[rank[list][i]];
const place = (i) => [part("phase", i), part("layer", i), part("operator", i)]
  .filter((s) => s !== "").join(", ");
function draw(name, attributes, text) {
  const node = document.createElementNS(NS, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  $("svg").append(node);
  return node;
}
const n = () => rank.live.length;
const x = (i) => L + (W - L - R) * i / Math.max(1, n());
let top_ = 1;
const y = (b) => H - B - (H - T - B) * b / top_;
function axis() {
  const raw = top_ / 5;
  let step = 2 ** Math.ceil(Math.log2(Math.max(1, raw)));
  for (let b = 0; b <= top_; b += step) {
    draw("line", {class: "grid", x1: L, x2: W - R, y1: y(b), y2: y(b)});
    draw("text", {x: L - 6, y: y(b) + 4, "text-anchor": "end"}, size(b));
  }
  draw("text", {x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle"},
    "layers in the order they run (not seconds)");
}
function areas() {
  const base = new Array(n()).fill(0);
  data.categories.forEach((name, c) => {
    let up = "", down = "";
    for (let i = 0; i < n(); ++i) {
      const low = base[i], high = low + rank.live[i][c];
      base[i] = high;
      up += `L${x(i).toFixed(1)} ${y(high).toFixed(1)}H${x(i + 1).toFixed(1)}`;
      down = `L${x(i + 1).toFixed(1)} ${y(low).toFixed(1)}H${x(i).toFixed(1)}` + down;
    }
    if (up !== "") draw("path", {d: "M" + up.slice(1) + down + "Z", fill: `var(--c${c})`});
  });
}
function phases() {
  for (let from = 0, to = 0; from < n(); from = to) {
    while (to < n() && rank.phase[to] === rank.phase[from]) ++to;
    const wide = x(to) - x(from), name = part("phase", from);
    draw("rect", {class: "phase", x: x(from), width: wide, y: H - B + 6, height: 18});
    if (wide > name.length * 8) {
      draw("text", {x: x(from) + wide / 2, y: H - B + 19, "text-anchor": "middle"}, name);
    }
  }
}
function limit() {
  if (data.capacity === null) return;
  const h = y(data.capacity);
  draw("line", {class: "limit", x1: L, x2: W - R, y1: h, y2: h});
  draw("text", {class: "limit-text", x: W - R, y: h - 5, "text-anchor": "end"},
    "the card holds " + size(data.capacity));
}
function choose(i) {
  at = Math.min(n() - 1, Math.max(0, i));
  const middle = (x(at) + x(at + 1)) / 2;
  $("at").setAttribute("x1", middle);
  $("at").setAttribute("x2", middle);
  $("where").textContent = (at === peak ? "At the peak: " : "In ") + place(at);
  const rows = data.categories.map((name, c) => [name, c, rank.live[at][c]])
    .filter((row) => row[2] > 0).sort((a, b) => b[2] - a[2]);
  $("rows").replaceChildren(...rows.map(([name, c, bytes]) => {
    const row = document.createElement("tr");
    const cells = [words(name), size(bytes), Math.round(100 * bytes / totals[at]) + " %"];
    cells.forEach((text, k) => {
      const cell = row.insertCell();
      if (k === 0) {
        const box = document.createElement("span");
        box.className = "box";
        box.style.background = `var(--c${c})`;
        cell.append(box);
      }
      cell.append(text);
    });
    return row;
  }));
  $("sum").textContent = size(totals[at]);
  $("svg").setAttribute("aria-valuenow", at + 1);
  $("svg").setAttribute("aria-valuetext", place(at) + ": " + size(totals[at]));
}
function show(which) {
  rank = data.ranks[which];
  totals = rank.live.map((live) => live.reduce((a, b) => a + b, 0));
  if (n() === 0) return;
  // What is reserved stays: the peak is where most of it is in use.
  const cache = data.categories.indexOf("allocator"), most_of = (a, b) => Math.max(a, b);
  const used = totals.map((bytes, i) => bytes - rank.live[i][cache]);
  peak = used.indexOf(used.reduce(most_of, 0));
  const held = totals.reduce(most_of, 0);
  top_ = 1.08 * Math.max(held, data.capacity ?? 0);
  $("svg").replaceChildren();
  $("svg").setAttribute("aria-valuemax", n());
  axis();
  areas();
  phases();
  limit();
  draw("line", {class: "at", id: "at", y1: T, y2: H - B});
  const over = data.capacity !== null && held > data.capacity;
  $("say").className = over ? "over" : "";
  const most = data.categories.map((name, c) => [name, rank.live[peak][c]])
    .sort((a, b) => b[1] - a[1]).slice(0, 3)
    .map(([name, bytes]) => `${words(name)} ${size(bytes)}`).join(", ");
  $("say").textContent = `At its fullest the GPU holds ${size(held)}` +
    (data.capacity === null ? "" : ` of ${size(data.capacity)}${over ? ": too much" : ""}`) +
    `; most of it: ${most}.`;
  choose(peak);
}
data.ranks.forEach((r, i) => $("rank").add(new Option(`${r.kind} (${r.ranks})`, i,
  false, r.kind === data.fullest)));
$("rank").addEventListener("change", (e) => show(Number(e.target.value)));
const moment = (e) => {
  const box = $("svg").getBoundingClientRect();
  const wide = (e.clientX - box.left) / box.width * W;
  return Math.floor((wide - L) / (W - L - R) * n());
};
$("svg").addEventListener("pointermove", (e) => choose(moment(e)));
$("svg").addEventListener("pointerdown", (e) => choose(moment(e)));
$("svg").addEventListener("keydown", (e) => {
  const to = {ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0,
    End: n() - 1, p: peak, P: peak}[e.key];
  if (to === undefined) return;
  e.preventDefault();
  choose(to);
});
$("to-peak").addEventListener("click", () => choose(peak));
show($("rank").selectedIndex);
)js";

}  // namespace steelyard::report
