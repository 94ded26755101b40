"""Makes the sparse embedded model: self-distillation of SmolLM2 into a shared expert and routed ones.

`python -m load_tests.distill --out DIR` on a host with a GPU; `--tiny` goes through every phase on a CPU in minutes.
What it keeps (services/experts/sparse_split.py says how it is used) is written to DIR as it gets better.
"""
