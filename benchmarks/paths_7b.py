"""Paths and effective weights of a mask of Llama-7B's shape at 50 %: processor seconds, and memory beside its bits.

python benchmarks/paths_7b.py
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from memory import beside
from transformers import LlamaConfig, LlamaForCausalLM

import topo
from topo.masks import BitRows


def main() -> None:
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32000, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    start = time.process_time()
    wiring = topo.trace(model)
    traced = time.process_time() - start
    rng = np.random.default_rng(0)
    masks = topo.MaskSet(
        {
            name: BitRows(shape, rng.integers(0, 2**64, (shape[0], math.prod(shape[1:]) // 64), np.uint64))
            for name, shape in wiring.shapes.items()
            if "layers" in name
        }
    )
    topo.analyze(topo.MaskSet({"a": np.ones((4, 4))}), metrics="paths")  # everything is loaded
    with beside() as most:
        start, clock = time.process_time(), time.perf_counter()
        found = topo.analyze(masks, wiring, metrics="paths", threads=2).network
        seconds, clock = time.process_time() - start, time.perf_counter() - clock
    bits = sum(masks.rows(name).words.nbytes for name in masks)
    print(
        f"{masks.size:,} weights, {found['effective_params']:,} effective, log10 {found['log10_effective_paths']:.2f}"
    )
    print(f"trace {traced:.1f} s; paths {seconds:.1f} processor seconds, {clock:.1f} s on two threads")
    print(f"bits {bits / 1e6:,.0f} MB, {most[0] / 1e6:,.0f} MB beside them")


if __name__ == "__main__":
    main()
