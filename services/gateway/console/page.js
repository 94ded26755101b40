const at = id => document.getElementById(id);
const make = (tag, text, kind) => { const made = document.createElement(tag); made.textContent = text ?? ""; if (kind) made.className = kind; return made; };
for (const each of document.querySelectorAll("[data-say]")) each.textContent = say[each.dataset.say];
at("text").placeholder = say.ask;

const headers = () => { const key = at("key").value.trim(); return key ? { authorization: "Bearer " + key } : {}; };
const wait = ms => new Promise(done => setTimeout(done, ms));
