"""The teacher as a writer: many texts at once, sampled token by token.

Rules: knows the dense model and its cache of keys and values. All texts are equally long at every step; the query
heads of one key head are taken as so many positions of one query. On a GPU a step is one captured graph per 64
positions: launched one by one, its 1,500 kernels take 83 ms where the arithmetic takes 20.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from load_tests.distill.torch_dense import Dense, final, neurons, rms, rope_table, rotate

BUCKET = 64


class Writer:
    """Room for `batch` texts of `length` tokens."""

    def __init__(self, model: Dense, batch: int, length: int) -> None:
        s, device = model.shape, model.embed.device
        self.model, self.batch, self.length = model, batch, length
        self.rope = rope_table(s, length, str(device))
        self.cache = torch.zeros(
            len(model.layers),
            2,
            batch,
            s.kv_heads,
            length,
            s.head_dim,
            dtype=model.embed.dtype,
            device=device,
        )
        self.token = torch.zeros(batch, dtype=torch.long, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def _last_hidden(self, seen: int) -> Tensor:
        """One token of every text through all layers; attends to the first `seen` positions up to its own."""
        model, s, batch = self.model, self.model.shape, self.batch
        dtype = model.embed.dtype
        table = self.rope[0][self.at], self.rope[1][self.at]
        past = (torch.arange(seen, device=self.at.device) <= self.at).expand(
            1, 1, s.heads // s.kv_heads, seen
        )
        x = F.embedding(self.token, model.embed).float()
        for w, kept in zip(model.layers, self.cache, strict=True):
            h = rms(x, w.norm1, s.eps).to(dtype)
            q = rotate(F.linear(h, w.q).view(batch, s.kv_heads, s.heads // s.kv_heads, s.head_dim), *table)
            k = rotate(F.linear(h, w.k).view(batch, s.kv_heads, 1, s.head_dim), *table)
            kept[0].index_copy_(2, self.at, k)
            kept[1].index_copy_(2, self.at, F.linear(h, w.v).view(batch, s.kv_heads, 1, s.head_dim))
            keys, values = kept[0][:, :, :seen], kept[1][:, :, :seen]
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=past)
            x = x + F.linear(mixed.reshape(batch, -1), w.o).float()
            h = rms(x, w.norm2, s.eps).to(dtype)
            x = x + F.linear(neurons(h, w.gate, w.up), w.down).float()
        return final(model, x)

    def _step(self, at: int) -> Tensor:
        seen = min(self.length, (at // BUCKET + 1) * BUCKET)
        self.at.fill_(at)
        if self.at.device.type != "cuda":
            return self._last_hidden(seen)
        if seen not in self.graphs:
            self._last_hidden(seen)  # warms the libraries up; writes what the replay writes again
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            pool = next(iter(self.graphs.values()))[0].pool() if self.graphs else None
            with torch.cuda.graph(graph, pool=pool):
                last = self._last_hidden(seen)
            self.graphs[seen] = graph, last
        graph, last = self.graphs[seen]
        graph.replay()
        return last

    @torch.no_grad()
    def write(
        self, begins: list[list[int]], temperatures: list[float], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Continue each beginning. (ids [batch, length], where each one's own words begin)."""
        device = self.at.device
        given = torch.tensor([len(begin) for begin in begins], device=device)
        rows = torch.zeros(self.batch, self.length, dtype=torch.long)
        for row, begin in enumerate(begins):
            rows[row, : len(begin)] = torch.tensor(begin)
        ids = rows.to(device)
        temperature = torch.tensor(temperatures, device=device)[:, None]
        for at in range(self.length - 1):
            self.token.copy_(ids[:, at])
            logits = F.linear(self._step(at), self.model.embed).float().div_(temperature)
            logits -= torch.empty_like(logits).exponential_(generator=generator).log_()
            ids[:, at + 1] = torch.where(at + 1 < given, ids[:, at + 1], logits.argmax(-1))
        return ids, given
