"""What shrinking costs: processor seconds on one thread, and memory beside the model that is given.

    python benchmarks/shrink_large.py              a ResNet-50 and a Llama of 1.1 billion weights (6 GB of memory)
    python benchmarks/shrink_large.py resnet50

Masks keep half of the weights at random, and nothing of a quarter of the hidden units.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from memory import beside
from torch import nn

import topo
from topo.masks import BitRows


def resnet50() -> tuple[nn.Module, topo.MaskSet]:
    torch.manual_seed(0)
    model = topo.models.build("resnet50").eval()
    return model, topo.MaskSet(dict(_half(model, hidden=(".conv1.", ".conv2."), read_by=())))


def llama() -> tuple[nn.Module, topo.MaskSet]:
    """TinyLlama's sizes, in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.initialization import no_init_weights

    config = LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
        vocab_size=32000, tie_word_embeddings=False,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with no_init_weights():
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-0.02, 0.02) if p.dim() > 1 else p.fill_(1)
    return model, topo.MaskSet(dict(_half(model, hidden=("gate_proj", "up_proj"), read_by=("down_proj",))))


def _half(model: nn.Module, hidden: tuple[str, ...], read_by: tuple[str, ...]) -> Iterator[tuple[str, BitRows]]:
    rng = np.random.default_rng(0)
    for name, p in model.named_parameters():
        if p.dim() < 2 or "embed" in name or "lm_head" in name:
            continue
        kept = np.unpackbits(rng.integers(0, 256, -(-p.numel() // 8), np.uint8), count=p.numel()).reshape(p.shape) > 0
        if any(word in name for word in hidden):
            kept[::4] = False
        if any(word in name for word in read_by):
            kept[:, ::4] = False
        yield name, BitRows.of_mask(kept)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    small = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    topo.shrink(small, {"0.weight": np.ones((4, 3))}, input_shape=(3,))  # everything is loaded
    print("network    parameters       after             bytes  processor s  MB beside the model")
    for name in names or ["resnet50", "llama"]:
        model, masks = {"resnet50": resnet50, "llama": llama}[name]()
        gc.collect()
        with beside() as most:
            start = time.process_time()
            found = topo.shrink(model, masks)
            taken = time.process_time() - start
        sizes = [sum(p.numel() for p in net.parameters()) for net in (model, found.model)]
        held = sum(p.numel() * p.element_size() for p in model.parameters())
        print(
            f"{name:<9} {sizes[0]:>13,} {sizes[1]:>13,} {held:>15,} {taken:>10.1f} {most[0] / 1e6:>12,.0f}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
