// Live figures ---------------------------------------------------------------------------------------------------
// [{name, labels, value}] of a Prometheus text page.
function parse(page) {
  const found = [];
  for (const line of page.split("\n")) {
    const sample = /^(?:ray_)?expertmesh_(\w+?)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample) continue;
    const labels = {};
    for (const [, name, value] of (sample[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    found.push({ name: sample[1], labels, value: Number(sample[3]) });
  }
  return found;
}

function table(title, heads, rows) {
  if (!rows.length) return [];
  const made = make("table"), top = make("tr");
  top.append(...heads.map(head => make("th", head)));
  made.append(top);
  for (const row of rows) {
    const line = make("tr");
    line.append(...row.map(cell => make("td", cell)));
    made.append(line);
  }
  return [make("h2", title), made];
}

function draw(samples) {
  const sum = (name, wanted = {}) => samples.reduce((total, each) => each.name === name
    && Object.entries(wanted).every(([label, value]) => each.labels[label] === value) ? total + each.value : total, 0);
  const values = (name, label) => [...new Set(samples.filter(each => each.name === name).map(each => each.labels[label]))];
  const round = number => String(Math.round(number * 100) / 100);
  const count = sum("ttft_seconds_count"), parts = [];
  const done = sum("requests_total", { outcome: "completed" });
  parts.push(...table(say.gateway, ["", ""], [
    [say.inProgress, round(sum("requests_in_progress"))], [say.done, round(done)], [say.failed, round(sum("requests_total") - done)],
    [say.hits, round(sum("response_cache_total", { verdict: "hit" }))],
    [say.ttft, count ? Math.round(1000 * sum("ttft_seconds_sum") / count) + " ms" : "–"],
  ]));
  for (const model of values("queue_capacity_slots", "model")) {
    const of = (name, labels = {}) => round(sum(name, { model, ...labels }));
    parts.push(...table(say.queue + " · " + model, [say.slots, say.borrowed, say.saturation],
      [[of("queue_capacity_slots"), of("queue_borrowed_slots"), of("queue_saturation_ratio")]]));
    parts.push(...table("", [say.band, say.waiting, say.running, say.granted, say.refused], values("queue_waiting_requests", "band").map(band =>
      [band, ...["queue_waiting_requests", "queue_running_requests", "queue_granted_total", "queue_refused_total"].map(name => of(name, { band }))])));
  }
  parts.push(...table(say.engines, [say.engine, say.load, say.learnt], values("engine_running_requests", "engine").map(engine =>
    [engine, round(sum("engine_running_requests", { engine })), round(sum("engine_depth_slots", { engine }))])));
  return parts;
}
