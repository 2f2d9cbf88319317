"""Our readers against torch.load(weights_only=True) and the safetensors package."""

from __future__ import annotations

from collections import Counter

import pytest
import rival_readers

pytest.importorskip("torch")
pytest.importorskip("safetensors.torch")


@pytest.mark.parametrize("kind", rival_readers.KINDS)
def test_what_both_accept_is_equal(tmp_path, kind):
    found = Counter(rival_readers.outcome(kind, path) for path in rival_readers.files(kind, tmp_path, 100))
    assert found["both"] >= 20  # whole files, at the least
    assert found["theirs"] <= 20  # damage that they do not see
