"""The fingerprint of a corpus."""

import hashlib
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.ids import Corpus
from pipeline.project.files import SPLITS


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.int64])
@given(st.lists(st.integers(0, 2**16 - 1), min_size=2), st.integers(1, 9))
def test_the_fingerprint_depends_neither_on_the_type_of_ids_nor_on_the_pieces(
    dtype: torch.dtype, ids: list[int], piece: int
) -> None:
    text = torch.tensor(ids)
    digest = hashlib.sha256(b"<eos>\na")
    for _ in SPLITS:
        digest.update(f"\n\n{len(ids)}\n".encode() + struct.pack(f"<{len(ids)}q", *ids))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.corpus.ids.IDS_AT_A_TIME", piece)
        assert Corpus(*[text.to(dtype)] * 3, ("<eos>", "a")).fingerprint == digest.hexdigest()
