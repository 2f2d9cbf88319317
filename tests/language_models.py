"""Tiny language models of transformers, pruned and saved as shards, as users' folders hold them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

BLOCKS, HIDDEN, HEADS = 2, 32, 4
_PLAIN = {"vocab_size": 96, "hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS}
_LLAMA = {**_PLAIN, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64,
          "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
# Name -> (class of its config, what it is made with).
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _LLAMA),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": HIDDEN, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": 64,
                            "bos_token_id": 1, "eos_token_id": 2}),
    "opt": ("OPTConfig", {**_PLAIN, "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": HIDDEN}),
    "mixtral": ("MixtralConfig", {**_LLAMA, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2MoeConfig", {**_LLAMA, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                                     "shared_expert_intermediate_size": 40}),
    "gpt_neox": ("GPTNeoXConfig", {**_PLAIN, "intermediate_size": 48, "max_position_embeddings": 64}),
    "falcon": ("FalconConfig", {**_PLAIN, "ffn_hidden_size": 48, "bos_token_id": 1, "eos_token_id": 2}),
    "falcon_new": ("FalconConfig", {**_PLAIN, "ffn_hidden_size": 48, "new_decoder_architecture": True,
                                    "num_kv_heads": 2, "bos_token_id": 1, "eos_token_id": 2}),
    "phi3": ("Phi3Config", {**_LLAMA, "pad_token_id": 0}),
    "gemma": ("GemmaConfig", {**_LLAMA, "head_dim": 8}),
}  # fmt: skip


@functools.cache
def _made(name: str) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind, options = CONFIGS[name]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**options))


def model(name: str) -> Any:
    """A model of random weights, in bfloat16: the same one every time, dense again."""
    made = _made(name).to(torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() >= 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + 0.001)
    return made.to(torch.bfloat16)


def is_decoder(name: str) -> bool:
    """Whether it is a linear layer of a block (a matrix, or experts in one tensor)."""
    return any(part.isdecimal() for part in name.split("."))


def prune(made: Any, density: float = 0.5, seed: int = 0) -> None:
    """Zeros at random in the blocks' linear layers; every other zero is -0.0, as products with masks leave them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() >= 2 and is_decoder(name):
                dropped = torch.rand(parameter.shape, generator=generator) >= density
                parameter[dropped] = 0
                parameter.view(-1)[:1] = -0.0


def saved(made: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Save as several shards; the tensors of two or more dimensions as the files hold them."""
    from safetensors.torch import load_file

    made.save_pretrained(folder, max_shard_size="60KB")
    held: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        held |= load_file(path)
    return {name: tensor for name, tensor in held.items() if tensor.dim() >= 2}
