"""Families of timm and torchvision, traced: how long it takes, and what the trace says of itself.

    python benchmarks/trace_zoo.py                  all that are installed; a table on standard output
    python benchmarks/trace_zoo.py maxvit swin      those whose name holds one of these words

Neither timm nor torchvision is among what the project installs; their rows are left out where they are not there.
Weights are drawn at random or not at all (meta device): nothing is downloaded. Columns: parameters of two or more
dimensions in layers of all, dead weights of the dense network, operations without a rule, seconds of the processor (one
thread).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

import topo
from topo.errors import TopoError, TraceWarning
from topo.trace.guard import dead_when_dense

TIMM = """resnet18 resnext50_32x4d resnest14d res2net50_26w_4s densenet121 vgg11_bn inception_v3 xception41 dpn68 dla34
    hrnet_w18_small mobilenetv3_small_100 mobilenetv4_conv_small efficientnet_b0 efficientnetv2_rw_t
    tf_efficientnet_lite0 mixnet_s mnasnet_100 ghostnet_100 regnety_002 nfnet_f0 repvgg_a0 rexnet_100
    cspresnet50 cspdarknet53 selecsls42 skresnet18 gernet_s convnext_atto convnextv2_atto convmixer_768_32
    vit_tiny_patch16_224 deit_tiny_patch16_224 beit_base_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224
    levit_128s pit_ti_224 tnt_s_patch16_224 twins_svt_small swin_tiny_patch4_window7_224 coat_tiny convit_tiny
    crossvit_9_240 visformer_tiny poolformer_s12 edgenext_xx_small mobilevit_xxs mobilevitv2_050
    efficientformer_l1 efficientvit_b0 efficientvit_m0 fastvit_t8 davit_tiny maxvit_rmlp_pico_rw_256
    maxvit_tiny_tf_224 coatnet_0_rw_224 coatnext_nano_rw_224 eva02_tiny_patch14_224 hiera_tiny_224
    mixer_s16_224 resmlp_12_224 gmixer_24_224 gmlp_s16_224 sequencer2d_s focalnet_tiny_srf inception_next_tiny
    hgnet_tiny tiny_vit_5m_224 nextvit_small repvit_m1 starnet_s1 mambaout_femto volo_d1_224 pvt_v2_b0
    gcvit_xxtiny nest_tiny"""
TORCHVISION = """alexnet vgg11 resnet18 resnext50_32x4d wide_resnet50_2 densenet121 googlenet inception_v3 squeezenet1_0
    mobilenet_v2 mobilenet_v3_small shufflenet_v2_x0_5 mnasnet0_5 efficientnet_b0 efficientnet_v2_s
    regnet_y_400mf convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t"""


def _models(words: Sequence[str]) -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    """(name, how it is made, input shape) of each model whose library is installed."""
    for name in TIMM.split() if _installed("timm") else []:
        if _asked(f"timm {name}", words):
            timm = importlib.import_module("timm")
            side = next((n for n in (240, 256) if name.endswith(str(n))), 299 if name == "inception_v3" else 224)
            yield (
                f"timm {name}",
                lambda timm=timm, name=name: timm.create_model(name, pretrained=False),
                (3, side, side),
            )
    for name in TORCHVISION.split() if _installed("torchvision") else []:
        if _asked(f"torchvision {name}", words):
            models = importlib.import_module("torchvision.models")
            side = 299 if name == "inception_v3" else 224
            yield f"torchvision {name}", lambda models=models, name=name: getattr(models, name)(), (3, side, side)


def _installed(library: str) -> bool:
    try:
        importlib.import_module(library)
    except Exception:  # not there, or there for another torch
        return False
    return True


def _asked(title: str, words: Sequence[str]) -> bool:
    return not words or any(word in title for word in words)


def row(title: str, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> str:
    """A line of the table; the error, in one line, if the model cannot be made or traced."""
    try:
        model = _made(make)
    except Exception as error:  # whatever the library raises
        return f"| {title} | not made: {_first_line(error)} | | | |"
    began = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            wiring = topo.trace(model, shape)
        except TopoError as error:
            return f"| {title} | not traced: {_first_line(error)} | | | |"
    seconds = time.process_time() - began
    said = [str(one.message) for one in caught if one.category is TraceWarning]
    unknown = sorted({text.partition(" ")[0] for text in said if "has no rule" in text or "every output" in text})
    held = [name for name, p in model.named_parameters() if p.dim() > 1]
    inside = sum(name in wiring.shapes for name in held)
    dead = sum(dead_when_dense(wiring).values())
    return f"| {title} | {inside} of {len(held)} | {dead:,} | {', '.join(unknown) or '-'} | {seconds:.1f} |"


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    """The model on the meta device; with numbers where its making reads some."""
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):  # regnet_y_400mf and models with tables of numbers ask for values
        return make()


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100].replace("|", "/")


def main(words: Sequence[str]) -> int:
    torch.set_num_threads(1)
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm", "torchvision") if _installed(name)
    ]
    print(f"{time.strftime('%Y-%m-%d')}, {', '.join(versions)}\n")
    print("| model | weights in layers | dead in the dense network | without a rule | s |")
    print("| --- | --- | --- | --- | --- |")
    for found in _models(words):
        print(row(*found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
