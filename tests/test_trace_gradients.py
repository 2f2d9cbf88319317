"""Effective weights are those with a non-zero gradient, weight by weight, for the table of small networks.

See `gradients` for the probe and `gradient_nets` for the table.
"""

from __future__ import annotations

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


@pytest.mark.parametrize("name, convention", rows())
def test_effective_weights_are_those_with_a_gradient(name, convention):
    found = differences(TABLE[name], convention)
    assert not found, "\n".join(found)


def test_the_table_is_large_and_has_every_family():
    families = {name.partition("/")[0] for name in TABLE}
    assert families >= {"hand", "layers", "weights", "gates", "attention", "recurrent"} and len(TABLE) >= 120


def test_every_network_that_is_said_to_be_missed_is_in_the_table():
    assert {name.strip() for names in MISSED.values() for name in names.split(";")} <= set(TABLE)
