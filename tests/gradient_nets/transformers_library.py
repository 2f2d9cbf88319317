"""Tiny models of the transformers library, by the names of their config and class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradient_nets.table import enter

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_TEXT = {**SMALL, "vocab_size": 20, "max_position_embeddings": 16}
SMALL_DECODER = {**SMALL_TEXT, "use_cache": False, "num_key_value_heads": 1, "pad_token_id": 0}
BOTH = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BOTH |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16, "vocab_size": 20, "use_cache": False}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
IDS = torch.tensor([[1, 4, 7, 5, 9, 6]])
PIXELS = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
VISION = {**SMALL, "image_size": 16, "patch_size": 8}
TOKENS = {"input_ids": IDS}


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


ADDED = ("position", "cls_token", "token_type")


def transformer(
    config: str,
    model: str,
    options: dict[str, Any],
    inputs: dict[str, Tensor] = TOKENS,
    added: tuple[str, ...] = ADDED,
    free: tuple[str, ...] = (),
    **more: Any,
) -> None:
    """A model of the library by the names of its config and class. added, free: learned constants, which are 0."""

    def build() -> nn.Module:
        import transformers

        made = getattr(transformers, config)(**options)
        made.use_cache = False
        return getattr(transformers, model)(made)

    def pick(made: Any) -> Any:
        found = [made[key] for key in made if "logits" in key or key.startswith("pred_")]
        return found or made["last_hidden_state"]

    how = {"free": (*added, *free), "pick": pick, "kwargs": inputs, "densities": (0.6, 0.25), **more}
    enter("transformers", model, build, **how)


def patches(made: Any) -> Tensor:
    """What a vision transformer gives but for its class token, which starts as a learned constant."""
    return made.last_hidden_state[:, 1:]


UNTIED = {"tie_word_embeddings": False}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 20, **UNTIED}
OPT = {**SMALL_TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16, **UNTIED}
RESNET = {"embedding_size": 8, "hidden_sizes": [12, 16], "depths": [1, 1]}
MAMBA = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 20, "time_step_rank": 2, **UNTIED}
RWKV = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 20, "context_length": 16, **UNTIED}
HEADS = {"num_self_attention_heads": 2, "num_cross_attention_heads": 2, "num_self_attends_per_block": 1}
PERCEIVER = {"num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1, "qk_channels": 16, "v_channels": 16}
PERCEIVER |= {**HEADS, "vocab_size": 20, "max_position_embeddings": 6}
MOBILEVIT = {"hidden_sizes": [16] * 3, "neck_hidden_sizes": [8, 8, 8, 12, 12, 12, 16], "num_attention_heads": 2}
MOBILEVIT |= {"image_size": 32, "patch_size": 2}
WHISPER = {**BOTH, **ENDS, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 8, **UNTIED}
CLIP_TEXT = {**SMALL, "vocab_size": 20, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
WAV2VEC2 = {**SMALL, "vocab_size": 20, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
WAV2VEC2 |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
DETR = {**BOTH, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_queries": 3}
DETR |= {"backbone_config": {"model_type": "resnet", "out_features": ["stage2"], **RESNET}}
DEEPSEEK = {"moe_intermediate_size": 12, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
DEEPSEEK |= {"first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "n_group": 1}
DEEPSEEK |= {**SMALL_DECODER, "num_key_value_heads": 2, "qk_nope_head_dim": 4, "v_head_dim": 4, "topk_group": 1}
MIXTRAL = {**SMALL_DECODER, "num_local_experts": 3, "num_experts_per_tok": 2}
# Experts are chosen by values; the operation that multiplies them knows no double.
MIXED = {"more": "experts", "precision": torch.float32}

# only="soft": without softmax, products of scores grow out of range.
transformer("BertConfig", "BertForSequenceClassification", SMALL_TEXT)
transformer("GPT2Config", "GPT2LMHeadModel", GPT2)
transformer("LlamaConfig", "LlamaForCausalLM", SMALL_DECODER)
transformer("OPTConfig", "OPTForCausalLM", OPT)
transformer("ViTConfig", "ViTModel", VISION, {"pixel_values": PIXELS}, pick=patches)
transformer("ResNetConfig", "ResNetForImageClassification", RESNET, {"pixel_values": drawn(1, 3, 32, 32)})
transformer("MambaConfig", "MambaForCausalLM", MAMBA, free=("A_log",))
transformer("RwkvConfig", "RwkvForCausalLM", RWKV, unmasked=("time_mix",), only="soft")
transformer(
    "PerceiverConfig", "PerceiverForMaskedLM", PERCEIVER, {"inputs": IDS}, (), unmasked=("latents", "position", "bias")
)
transformer(
    "ConvBertConfig", "ConvBertModel", {**SMALL_TEXT, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1}
)
transformer(
    "TimesformerConfig",
    "TimesformerModel",
    {**VISION, "num_frames": 2},
    {"pixel_values": drawn(1, 2, 3, 16, 16)},
    free=("time_embeddings",),
    pick=patches,
)
transformer(
    "LongformerConfig", "LongformerModel", {**SMALL_TEXT, "attention_window": 4, "pad_token_id": 0}, only="soft"
)
transformer(
    "MobileViTConfig",
    "MobileViTForImageClassification",
    MOBILEVIT,
    {"pixel_values": drawn(1, 3, 128, 128)},
    only="soft",
)
transformer(
    "WhisperConfig",
    "WhisperForConditionalGeneration",
    WHISPER,
    {"input_features": drawn(1, 8, 16), "decoder_input_ids": IDS},
)
transformer(
    "CLIPConfig",
    "CLIPModel",
    {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 8},
    {"input_ids": IDS, "pixel_values": PIXELS},
    free=("class_embedding",),
    only="soft",
)
# The convolution under weight norm is left aside: norms pass, by convention, but its gradients go through the norm.
transformer("Wav2Vec2Config", "Wav2Vec2ForCTC", WAV2VEC2, {"input_values": drawn(1, 60)}, unmasked=("pos_conv",))
transformer(
    "T5Config",
    "T5ForConditionalGeneration",
    T5,
    {**TOKENS, "decoder_input_ids": IDS},
    free=("relative_attention_bias",),
    unmasked=("shared",),
)
transformer(
    "DetrConfig", "DetrForObjectDetection", DETR, {"pixel_values": drawn(1, 3, 32, 32)}, (), unmasked=("position",)
)
transformer("DeepseekV3Config", "DeepseekV3ForCausalLM", DEEPSEEK, **MIXED)
transformer("MixtralConfig", "MixtralForCausalLM", MIXTRAL, **MIXED)
transformer(
    "GptOssConfig", "GptOssForCausalLM", {**MIXTRAL, "intermediate_size": 12, "head_dim": 8}, **MIXED, only="soft"
)
