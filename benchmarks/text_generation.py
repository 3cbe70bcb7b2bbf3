"""Reading and writing speed, time to the first token from a cold start, and memory, beside `transformers`.

    python -m benchmarks.text_generation [--prompt-tokens 512] [--new-tokens 128] [--rounds 5]

Both run the same weights (the `nano` decoder, saved once as a bfloat16 checkpoint) on the same threads in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from .measure import alternately, in_own_process, peak_memory, print_table, ratio

QUESTION = "What is the capital of France?"


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", nargs=2, metavar=("ENGINE", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        print(json.dumps(_cold(*arguments.cold)))
        return
    with tempfile.TemporaryDirectory() as folder:
        from sensorium import sdk

        model = sdk.load("nano", dtype="bfloat16")
        model.save(folder, text_only=True)
        _speeds(folder, arguments.prompt_tokens, arguments.new_tokens, arguments.rounds)
        del model
        _cold_starts(folder, arguments.rounds)


def _speeds(folder: str, prompt: int, new: int, rounds: int) -> None:
    rows = []
    for dtype in ("float32", "bfloat16"):
        ours, theirs = _ours(folder, dtype), _theirs(folder, dtype)
        tokens = list(range(1000, 1000 + prompt))
        for what, count, work in (("prefill", prompt, (tokens, 1)), ("decode", new, (tokens[:32], new))):
            runs = {"ours": lambda w=work, f=ours: f(*w), "theirs": lambda w=work, f=theirs: f(*w)}
            best = alternately(runs, rounds=rounds)
            speeds = {name: count / taken for name, taken in best.items()}
            values = (f"{speeds['ours']:.0f}", f"{speeds['theirs']:.0f}", ratio(speeds["ours"], speeds["theirs"]))
            rows.append((dtype, f"{what} {count}", *values))
    print_table(("dtype", "tokens", "Sensorium (torch), tok/s", "transformers, tok/s", "ratio"), rows)
    print()


def _ours(folder: str, dtype: str) -> Callable[[list[int], int], object]:
    from sensorium import sdk
    from sensorium.sdk.generation import Generation
    from sensorium.sdk.options import GenerationOptions

    model = sdk.load(folder, dtype=dtype)

    def run(prompt: list[int], new: int) -> object:
        options = GenerationOptions(max_new_tokens=new, min_new_tokens=new)
        return Generation(model.engine, model.tokenizer, [prompt], options).results()

    return run


def _theirs(folder: str, dtype: str) -> Callable[[list[int], int], object]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))

    def run(prompt: list[int], new: int) -> object:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            return model.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    return run


def _cold_starts(folder: str, rounds: int) -> None:
    rows = []
    runs = {
        name: [in_own_process("benchmarks.text_generation", "--cold", name, folder) for _ in range(rounds)]
        for name in ("ours", "theirs")
    }
    for what, key, unit in (("process start to first token", "seconds", "s"), ("peak memory", "peak", "MB")):
        ours, theirs = (min(run[key] for run in runs[name]) for name in ("ours", "theirs"))
        scale, digits = (1, 2) if unit == "s" else (1e6, 0)
        values = (f"{ours / scale:.{digits}f} {unit}", f"{theirs / scale:.{digits}f} {unit}")
        rows.append((what, *values, ratio(theirs, ours)))
    print_table(("cold start, bfloat16", "Sensorium (torch)", "transformers", "ratio (theirs / ours)"), rows)


def _cold(engine: str, folder: str) -> dict[str, object]:
    """One question in a fresh process, up to its first token."""
    if engine == "ours":
        from sensorium import sdk

        text = sdk.load(folder).ask(QUESTION, max_new_tokens=1).text
    else:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        messages = [{"role": "user", "content": QUESTION}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**inputs, max_new_tokens=1, do_sample=False)
        text = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])
    return {"text": text, "peak": peak_memory(), "folder": Path(folder).name}


if __name__ == "__main__":
    main()
