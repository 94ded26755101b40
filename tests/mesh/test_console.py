"""The page at `/`: public, whole in one file, and bound to what is in it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from services.gateway import console
from services.telemetry import names
from tests.mesh.local_mesh import local_mesh


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_public_and_says_what_it_may_do(tmp_path: Path) -> None:
    async def visit() -> None:
        async with local_mesh(tmp_path, engines=1) as mesh:
            answer = await mesh.send("GET", "/", b"", tenant="")
            page = await answer.read()
            assert (answer.status, page) == (200, console.PAGE)
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            policy = answer.headers["content-security-policy"]
            assert (
                "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
            )
            for tag in ("script", "style"):
                (text,) = re.findall(f"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
                named = base64.b64encode(hashlib.sha256(text).digest()).decode()
                assert f"{tag}-src 'sha256-{named}'".lower() in policy.lower()
            head = await mesh.send("HEAD", "/", b"", tenant="")
            assert head.status == 200

    asyncio.run(visit())


def test_the_page_can_be_left_out(tmp_path: Path) -> None:
    async def visit() -> None:
        async with local_mesh(tmp_path, engines=1, gateway={"console": False}) as mesh:
            assert (await mesh.send("GET", "/", b"", tenant="")).status == 404

    asyncio.run(visit())


def test_the_page_asks_for_nothing_from_elsewhere_and_runs_no_text() -> None:
    tags = Tags()
    tags.feed(console.PAGE.decode())
    for tag, attributes in tags.found:
        assert not {"src", "href", "action"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    text = console.PAGE.decode()
    assert not re.findall(r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)


def test_the_page_shows_figures_that_exist() -> None:
    used = set(re.findall(r'"((?:queue|engine|ttft|itl|requests|response)_\w+)"', console.PAGE.decode()))
    known = {metric.name.removeprefix(names.PREFIX) for metric in names.ALL_METRICS}
    known |= {f"{name}_{part}" for name in known for part in ("count", "sum")}
    assert used and used <= known


def test_both_languages_have_every_word() -> None:
    text = console.PAGE.decode()
    block = text.partition("const WORDS = {")[2].partition("\n};")[0]
    english, _, chinese = block.partition("\n  zh: ")
    words = [
        set(re.findall(r"[{,]\s*(\w+): \"", part)) for part in ("{" + english.partition("{")[2], chinese)
    ]
    assert words[0] == words[1] and len(words[0]) > 20
    said = set(re.findall(r"say\.(\w+)", text)) | set(re.findall(r'data-say="(\w+)"', text))
    assert said <= words[0]


def test_a_page_of_another_origin_may_call_where_it_is_named(tmp_path: Path) -> None:
    async def call() -> None:
        chat, asks = {"origin": "https://chat.example"}, {"access-control-request-method": "POST"}
        body = {"model": "sim", "prompt": "x", "max_tokens": 2}
        async with local_mesh(
            tmp_path, engines=1, gateway={"cors_origins": ("https://chat.example",)}
        ) as mesh:
            first = await mesh.send("OPTIONS", "/v1/completions", b"", tenant="", headers=chat | asks)
            assert (first.status, first.headers["access-control-allow-methods"]) == (200, "get, post")
            for more in ({}, {"stream": True}, {"max_tokens": 0}):
                answer = await mesh.post("/v1/completions", body | more, headers=chat)
                await answer.read()
                assert answer.headers["access-control-allow-origin"] == "https://chat.example", more
            for headers, path in (({"origin": "https://other.example"}, "/v1/models"), (chat, "/metrics")):
                answer = await mesh.send("GET", path, b"", headers=headers)
                assert answer.status == 200 and "access-control-allow-origin" not in answer.headers
            refused = await mesh.send("OPTIONS", "/metrics", b"", headers=chat | asks)
            assert refused.status == 405

    asyncio.run(call())


PICTURE = """
const made = {}, node = tag => ({
  tag, kept: {}, parts: [], style: {},
  setAttribute(name, value) { this.kept[name] = value; },
  append(...more) { this.parts.push(...more); },
  replaceChildren(...more) { this.parts = more; },
});
const at = id => made[id] ??= node(id), document = { createElementNS: (_, tag) => node(tag) };
const say = new Proxy({}, { get: (_, name) => name });
SCRIPT
const sample = (name, value, labels) => ({ name, value, labels });
const page = tokens => ["a", "b"].flatMap(model => [
  sample("queue_capacity_slots", 4, { model }),
  sample("queue_waiting_requests", 0, { model, band: "vip" }),
  sample("engine_up", 1, { model, engine: model + 1 }),
  sample("itl_seconds_count", model === "b" ? tokens : 0, { model }),
]).concat(sample("requests_in_progress", 1, { gateway: "g" }));
drawGraph(page(0));
drawGraph(page(100));
const parts = at("graph").parts, kinds = parts.map(each => each.kept.class || "");
const asks = parts.filter(each => each.kept.class === "ask");
const starts = asks.map(each => each.kept.d.slice(1).split(" ").map(parseFloat));
const gateway = parts.find(each => each.kept.class === "box up").parts[0].kept;
const begun = starts.filter(([x, y]) => y === 36).map(([x]) => x <= gateway.width);
console.log(JSON.stringify([kinds.filter(kind => kind.startsWith("way")), begun]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's script with")
def test_the_picture_shows_whose_tokens_move_and_lines_begin_at_gateways() -> None:
    script = (Path(console.__file__).parent / "graph.js").read_text()
    told = subprocess.run(
        ["node", "-e", PICTURE.replace("SCRIPT", script)], capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout) == [["way", "way lit"], [True, True, True]]
