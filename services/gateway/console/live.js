async function look() {
  const ready = await fetch("/readyz").catch(() => null);
  at("ready").textContent = ready && ready.ok ? "● " + say.ready : "○ " + say.notReady;
  if (ready && ready.ok && at("key").value && !running) await loadModels();
  const answer = await fetch("/metrics", { headers: headers() }).catch(() => null);
  at("note").textContent = answer && !answer.ok ? say.hidden : "";
  if (!answer || !answer.ok) return;
  const samples = parse(await answer.text());
  drawGraph(samples);
  at("figures").replaceChildren(...draw(samples));
}

async function live() {
  for (;;) {
    if (!document.hidden) await look().catch(() => null);
    await wait(2000);
  }
}

at("key").value = sessionStorage.getItem("key") || "";
loadModels();
live();
