"""Effective weights are those with a non-zero gradient, weight by weight, for the table of small networks.

See `gradients` for the probe and `gradient_nets` for the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gradient_nets import MISSED, TABLE
from gradients import CONVENTIONS, differences

torch.set_num_threads(1)


def rows():
    for name, case in TABLE.items():
        for convention in CONVENTIONS:
            if case.only in (None, convention):
                marks = [pytest.mark.xfail(reason=case.missed, strict=True)] if case.missed else []
                yield pytest.param(name, convention, marks=marks)


@pytest.mark.parametrize("name, convention", list(rows()))
def test_effective_weights_are_those_with_a_gradient(name, convention):
    found = differences(TABLE[name], convention)
    assert not found, "\n".join(found)


def test_the_table_is_large_and_has_every_family():
    families = {name.partition("/")[0] for name in TABLE}
    assert families >= {"hand", "layers", "weights", "gates", "attention", "recurrent"} and len(TABLE) >= 120


def test_every_network_that_is_said_to_be_missed_is_in_the_table():
    assert {name.strip() for names in MISSED.values() for name in names.split(";")} <= set(TABLE)


NAMED = """Mamba RWKV Perceiver ConvBERT TimeSformer Longformer MobileViT MaxViT CoatNet Whisper CLIP Wav2Vec2 T5 DETR
    DeepSeek-V3 Mixtral gpt-oss"""


def test_named_architectures_are_compared_or_said_not_to_be():
    compared = "".join(name.lower() for name in TABLE if name.startswith("transformers/"))
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    aside = page[page.index("Longformer is traced with more") :]
    for name in NAMED.split():
        assert name in page and (name.lower().replace("-", "") in compared or name in aside), name
