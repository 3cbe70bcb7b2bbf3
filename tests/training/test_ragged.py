"""Short prompts that begin alike, in one line without padding: the decoder's own logits and gradients."""

from __future__ import annotations

import torch
from sensorium.fusion.adapter import adapter_parameters, add_adapter
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.training.nano.ragged import ragged_logits

SIZES = {"vocabulary_size": 17, "hidden_size": 22, "heads": 6, "kv_heads": 2, "head_size": 4, "mlp_size": 19}


def test_logits_and_gradients_are_those_of_the_rows_alone() -> None:
    torch.manual_seed(2)
    config = DecoderConfig(
        family="llama", layers=3, context_length=64, rope=Rope(dimensions=4), tied_head=True, **SIZES
    )
    decoder = Decoder(config).double()
    switch = add_adapter(decoder, "test", targets=("o_proj", "down_proj"), rank=3)
    parameters = list(adapter_parameters(decoder).values())
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.3)
    beginning, *rows = (torch.randn(length, 22, dtype=torch.float64) for length in (5, 7, 3, 11))
    asked = [2, 1, 3]
    with switch.set_to(True):
        found = ragged_logits(decoder, beginning, rows, asked)
        whole = [decoder(embeddings=torch.cat((beginning, row))[None])[0] for row in rows]
    expected = torch.cat([logits[-1 - count : -1] for logits, count in zip(whole, asked, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((logits * weight).sum(), parameters) for logits in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
