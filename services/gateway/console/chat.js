let talk = [], running = null;

// The chat -------------------------------------------------------------------------------------------------------
// What may be talked to with this key; what was chosen stays chosen, models may come and go meanwhile.
async function loadModels() {
  const key = at("key").value.trim();
  const answer = await fetch("/v1/models", { headers: headers() }).catch(() => null);
  const found = answer && answer.ok ? (await answer.json()).data.filter(each => each.type !== "embedding") : [];
  if (key !== at("key").value.trim()) return;
  const names = found.map(each => each.id), chosen = at("model").value;
  if (names.join("\n") !== [...at("model").options].map(each => each.value).join("\n")) {
    at("model").replaceChildren(...names.map(name => make("option", name)));
    if (names.includes(chosen)) at("model").value = chosen;
  }
  if (!names.length) return;
  sessionStorage.setItem("key", key);
  at("talk").querySelectorAll(".locked").forEach(each => each.remove());
}

// Events of a stream as {id, data}; ends when the connection does.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = { id: "", data: "" };
      for (const line of part.split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      yield event;
    }
  }
}

class Refused extends Error {}

// One answer, over as many connections as it takes: what is cut off is asked for from the last event on.
async function stream(request, name, signal, show) {
  let last = "", whole = false;
  for (let tries = 0; !whole; tries++) {
    const more = { ...headers(), "content-type": "application/json", "idempotency-key": name };
    if (last) more["last-event-id"] = last;
    try {
      const answer = await fetch("/v1/chat/completions", { method: "POST", headers: more, body: JSON.stringify(request), signal });
      if (!answer.ok) {
        const told = await answer.json().catch(() => ({ error: { message: answer.statusText } }));
        if (last && answer.status === 503 && tries < 30) throw new TypeError("come back");
        throw new Refused(answer.status + ": " + told.error.message);
      }
      show.head(answer);
      tries = 0;
      for await (const event of events(answer.body)) {
        if (event.data === "[DONE]") { whole = true; break; }
        const told = JSON.parse(event.data);
        if (told.error) {
          if (event.id === "" && last && told.error.code === "draining") throw new TypeError("come back");
          throw new Refused(told.error.message);
        }
        if (event.id) last = event.id;
        show.piece(told);
      }
      if (!whole && !last) throw new Refused("the stream was cut off");
    } catch (error) {
      if (signal.aborted || error instanceof Refused || !last || tries > 30) throw error;
      show.lost();
      await wait(500);
    }
  }
}

async function ask(text) {
  talk.push({ role: "user", content: text });
  at("talk").append(make("article", text, "user"));
  const article = make("article"), said = make("span"), foot = make("footer");
  const thoughts = make("details"), thought = make("span");
  thoughts.append(make("summary", say.thoughts), thought);
  article.append(said, foot);
  at("talk").append(article);
  const begun = performance.now();
  let first = 0, count = 0, cache = "", usage = null, finish = "";
  const line = () => {
    const seconds = (performance.now() - begun - first) / 1000;
    foot.textContent = [first && say.first + " " + first.toFixed(0) + " ms", (usage ? usage.completion_tokens : count) + " " + say.tokens,
      count > 1 && cache !== "hit" && (count / seconds).toFixed(1) + " " + say.rate, cache && "x-cache: " + cache, finish].filter(Boolean).join(" · ");
  };
  const show = {
    head: answer => { cache = cache || answer.headers.get("x-cache") || ""; },
    lost: () => { foot.textContent = say.again + " …"; },
    piece: told => {
      usage = told.usage || usage;
      const choice = told.choices[0];
      if (!choice) return;
      finish = choice.finish_reason || finish;
      if (choice.delta.reasoning_content && !thoughts.isConnected) article.prepend(thoughts);
      if (choice.delta.content || choice.delta.reasoning_content) {
        first = first || performance.now() - begun;
        count++;
        thought.textContent += choice.delta.reasoning_content || "";
        said.textContent += choice.delta.content || "";
        at("talk").scrollTop = at("talk").scrollHeight;
      }
      line();
    },
  };
  running = new AbortController();
  at("send").disabled = true;
  at("stop").disabled = false;
  const name = "page-" + Array.from(crypto.getRandomValues(new Uint8Array(12)), each => each.toString(16).padStart(2, "0")).join("");
  try {
    await stream({ model: at("model").value, messages: talk, stream: true, stream_options: { include_usage: true },
      temperature: Number(at("temperature").value), max_tokens: Number(at("longest").value) }, name, running.signal, show);
    line();
    talk.push({ role: "assistant", content: said.textContent });
  } catch (error) {
    if (running.signal.aborted && said.textContent) talk.push({ role: "assistant", content: said.textContent });
    else talk.pop();
    if (!running.signal.aborted) { article.classList.add("error"); foot.textContent = error.message; }
  } finally {
    running = null;
    at("send").disabled = false;
    at("stop").disabled = true;
  }
}

at("ask").addEventListener("submit", async event => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || running) return;
  if (!at("model").value) await loadModels();
  if (!at("model").value) {
    at("talk").append(make("article", at("key").value.trim() ? say.badKey : say.needKey, "error locked"));
    return;
  }
  at("text").value = "";
  ask(text);
});
at("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at("ask").requestSubmit(); }
});
at("stop").addEventListener("click", () => running && running.abort());
at("clear").addEventListener("click", () => { if (running) running.abort(); talk = []; at("talk").replaceChildren(); });
at("key").addEventListener("change", loadModels);
