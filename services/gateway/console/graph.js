// The live graph ---------------------------------------------------------------------------------------------------
// Decisions go through the graph, tokens do not: thin lines are who asks whom, the thick one is the tokens' way.
const MAX_ENGINES = 24, WIDTH = 400;
const shape = (tag, attributes, text) => {
  const made = document.createElementNS(at("graph").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const short = number => number >= 1e4 ? (number / 1e3).toFixed(0) + "k" : number >= 100 || Number.isInteger(number) ? number.toFixed(0) : number.toFixed(1);

// What counters grew by each second since the page before; a series that began anew, or is gone, adds nothing.
class Rates {
  constructor() { this.before = new Map(); this.then = 0; this.grown = []; }
  take(samples) {
    const now = performance.now(), values = new Map();
    const seconds = (now - this.then) / 1000;
    this.grown = [];
    for (const each of samples) {
      if (!/_(total|count)$/.test(each.name)) continue;
      const series = each.name + JSON.stringify(each.labels);
      values.set(series, each.value);
      const gained = each.value - (this.before.get(series) ?? each.value);
      if (gained > 0) this.grown.push({ name: each.name, labels: each.labels, value: gained / seconds });
    }
    this.before = values;
    this.then = now;
  }
}
const rates = new Rates();

function box(x, y, width, height, kind, title, more, tip) {
  const made = shape("g", { class: "box " + kind, transform: `translate(${x} ${y})` });
  made.append(shape("rect", { width, height, rx: 5 }), shape("text", { x: 7, y: 14 }, title));
  if (more) made.append(shape("text", { x: 7, y: 28, class: "soft" }, more));
  if (tip) made.append(shape("title", {}, tip));
  return made;
}

// A bar from 0 to 1, with a mark where one is given.
function bar(x, y, width, share, kind, mark) {
  const parts = [shape("rect", { x, y, width, height: 5, class: "rail" }),
    shape("rect", { x, y, width: width * Math.min(1, Math.max(0, share)), height: 5, class: "fill " + kind })];
  if (mark !== undefined) parts.push(shape("rect", { x: x + width * Math.min(1, mark) - 1, y: y - 2, width: 2, height: 9, class: "mark" }));
  return parts;
}

function drawGateways(list, of, growing) {
  const width = (WIDTH - 34 + 8) / Math.max(1, list.length) - 8;
  return list.map((gateway, number) => box(number * (width + 8), 0, width, 36, "up",
    say.door + (list.length > 1 ? " " + (number + 1) : ""),
    `${short(of("requests_in_progress", { gateway }))} ${say.inProgress} · ${short(growing("requests_total", { gateway }))}/s`, gateway));
}

function drawQueue(y, model, bands, of, growing) {
  const made = box(108, y, WIDTH - 142, 24 + 17 * bands.length, "up", `${say.queue} · ${model}`);
  const slots = Math.max(1, of("queue_capacity_slots", { model }));
  bands.forEach((band, number) => {
    const one = { model, band }, row = 30 + 17 * number;
    const running = of("queue_running_requests", one), waiting = of("queue_waiting_requests", one);
    made.append(shape("text", { x: 7, y: row + 2, class: "soft" }, band), ...bar(76, row - 4, 72, running / slots, "band" + number),
      shape("text", { x: 154, y: row + 2, class: waiting ? "warm" : "soft" }, `${short(running)} + ${short(waiting)} ${say.waiting}`));
    made.append(shape("title", {}, `${short(growing("queue_granted_total", { model }))} ${say.granted}/s`));
  });
  return made;
}

function drawEngines(y, engines, of) {
  const shown = engines.slice(0, MAX_ENGINES), width = (WIDTH - 34 - 3 * 8) / 4, parts = [];
  shown.forEach((engine, number) => {
    const up = of("engine_up", { engine }), most = Math.max(1, of("engine_max_depth_slots", { engine }));
    const running = of("engine_running_requests", { engine }), kv = of("engine_kv_reserved_ratio", { engine });
    const made = box((number % 4) * (width + 8), y + Math.floor(number / 4) * 54, width, 46, up ? "up" : "down", engine.slice(-11),
      undefined, `${engine}: ${short(running)} / ${short(most)}, KV ${Math.round(100 * kv)}%, ${(1000 * of("engine_step_seconds", { engine })).toFixed(1)} ms`);
    if (up) made.append(shape("text", { x: width - 7, y: 14, "text-anchor": "end" }, short(running)), ...bar(7, 23, width - 14, running / most, "load", of("engine_depth_slots", { engine }) / most), ...bar(7, 34, width - 14, kv, "kv"));
    else made.append(shape("text", { x: 7, y: 32, class: "soft" }, say.away));
    parts.push(made);
  });
  if (engines.length > MAX_ENGINES) parts.push(shape("text", { x: 0, y: y + 54 * 6 + 8, class: "soft" }, "+ " + (engines.length - MAX_ENGINES)));
  return parts;
}

// Clients' side on top, engines below; the tokens' way runs along the right edge. Sets the picture and its words.
function drawGraph(samples) {
  rates.take(samples);
  const sumOf = list => (name, wanted = {}) => list.reduce((total, each) => each.name === name
    && Object.entries(wanted).every(([label, value]) => each.labels[label] === value) ? total + each.value : total, 0);
  const of = sumOf(samples), growing = sumOf(rates.grown);
  const values = (name, label, wanted = {}) => [...new Set(samples.filter(each => each.name === name
    && Object.entries(wanted).every(([key, value]) => each.labels[key] === value)).map(each => each.labels[label]))];
  const tokensOf = wanted => growing("itl_seconds_count", wanted) + growing("ttft_seconds_count", wanted);
  const tokens = tokensOf({}), hits = growing("response_cache_hits_total");
  const lines = [], boxes = [...drawGateways(values("requests_in_progress", "gateway"), of, growing)];
  let y = 66;
  boxes.push(box(0, y, 92, 40, hits ? "up lit" : "up", say.cache, `${short(hits)} ${say.hitsEach}`));
  lines.push(shape("path", { d: `M46 36 V${y}`, class: "ask" }));
  let first = true;
  for (const model of values("queue_capacity_slots", "model")) {
    const bands = values("queue_waiting_requests", "band", { model }), engines = values("engine_up", "engine", { model }).sort();
    boxes.push(drawQueue(y, model, bands, of, growing));
    lines.push(shape("path", { d: first ? `M220 36 V${y}` : `M100 36 V${y + 14} H108`, class: "ask" }));
    first = false;
    const below = y + 24 + 17 * bands.length, row = below + 26;
    const columns = Math.min(4, engines.length), step = (WIDTH - 34 - 3 * 8) / 4 + 8;
    for (let number = 0; number < columns; number++)
      lines.push(shape("path", { d: `M220 ${below} C220 ${below + 16} ${number * step + 42} ${below + 10} ${number * step + 42} ${row}`, class: "ask" }));
    boxes.push(...drawEngines(row, engines, of));
    const rows = Math.ceil(Math.min(engines.length, MAX_ENGINES) / 4), end = row + 54 * Math.max(1, rows) - 8 + (engines.length > MAX_ENGINES ? 20 : 0);
    const way = shape("path", { d: `M${Math.min(WIDTH - 34, columns * step - 8)} ${row + 23} H${WIDTH - 16} V18 H${WIDTH - 30}`, class: tokensOf({ model }) ? "way lit" : "way" });
    if (tokensOf({ model })) way.style.animationDuration = Math.max(0.15, Math.min(3, 60 / tokensOf({ model }))) + "s";
    lines.push(way);
    y = end + 34;
  }
  const words = `${short(tokens)} ${say.rate}`;
  at("graph").setAttribute("viewBox", `-2 -2 ${WIDTH + 4} ${Math.max(108, y - 22)}`);
  at("graph").setAttribute("aria-label", words);
  at("graph").replaceChildren(...lines, ...boxes, shape("text", { x: WIDTH - 22, y: 52, class: "rate", "text-anchor": "end" }, words));
}
