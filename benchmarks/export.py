"""Speed, start and memory of an exported bundle beside onnxruntime-genai, llama.cpp and `transformers`, on the same
threads; and where a step's time goes.

    python -m benchmarks.export [--quant int4] [--prompt-tokens 512] [--new-tokens 128] [--after 32] [--rounds 5]

onnxruntime-genai runs our bundle as it is, and the int4 build that its own builder makes of the same checkpoint (needs
the package onnx-ir). llama.cpp (package llama-cpp-python, left out where it is not installed) runs the GGUF file that
the bundle is made from. The memory bandwidth is that of a copy of 256 MB, counted both ways. Perplexities are of the
first 512 tokens of the shipped text, read by onnxruntime-genai.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .measure import alternately, in_own_process, peak_memory, print_table, ratio, seconds

QUESTION = "What is the capital of France?"
Run = Callable[[list[int], int], object]


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quant", default="int4")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--after", type=int, default=32, help="tokens that the new ones follow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", nargs=2, metavar=("ENGINE", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        print(json.dumps(_cold(*arguments.cold)))
        return
    from sensorium import sdk
    from sensorium.sdk.hub import resolve

    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle, built = (Path(folder) / name for name in ("checkpoint", "bundle", "built"))
        sdk.load("nano", dtype="float32").save(checkpoint, text_only=True)
        manifest = sdk.export("nano", bundle, quant=arguments.quant)
        builds = {"genai, our bundle": bundle}
        if _build(checkpoint, built):
            builds["genai, its own int4"] = built
        runs: dict[str, Run] = {"Sensorium": _ours(bundle)} | {name: _genai(path) for name, path in builds.items()}
        if importlib.util.find_spec("llama_cpp"):
            length = max(arguments.prompt_tokens, arguments.after) + arguments.new_tokens + 1
            runs["llama.cpp, the GGUF file"] = _llama(resolve("nano"), length)
        runs["transformers, bfloat16"] = _transformers(checkpoint)
        size = sum(entry.size for entry in manifest.files.values())
        named = {name: value for name, value in manifest.figures.items() if "perplexity" in name}
        print(f"{manifest.quantization}, {size / 1e6:.1f} MB, {named}\n")
        _speeds(runs, arguments, _read_in_a_step(bundle / "model.onnx"))
        runs.clear()
        print_table(("build", "perplexity"), [(name, f"{_perplexity(path):.2f}") for name, path in builds.items()])
        for tokens in (1, arguments.prompt_tokens):
            _shares(bundle / "model.onnx", tokens)
        _cold_starts({"onnx": bundle, "torch": Path("nano")}, arguments.rounds)


def _read_in_a_step(graph: Path) -> int:
    """Bytes of the weights that a step reads: all of a graph's."""
    import onnx

    weights = onnx.load(graph, load_external_data=False).graph.initializer
    return sum(int(entry.value) for tensor in weights for entry in tensor.external_data if entry.key == "length")


def _speeds(runs: dict[str, Run], arguments: argparse.Namespace, weights: int) -> None:
    prompt, new, rounds, after = arguments.prompt_tokens, arguments.new_tokens, arguments.rounds, arguments.after
    tokens = list(range(1000, 1000 + max(prompt, after)))

    def best(length: int, count: int) -> dict[str, float]:
        works = {name: lambda run=run: run(tokens[:length], count) for name, run in runs.items()}
        return alternately(works, rounds=rounds)

    prefill = best(prompt, 1)
    read = prefill if after == prompt else best(after, 1)
    decode = {name: took - read[name] for name, took in best(after, new + 1).items()}
    rows = []
    for name in runs:
        speeds = (prompt / prefill[name], new / decode[name])
        ratios = (ratio(prefill[name], prefill["Sensorium"]), ratio(decode[name], decode["Sensorium"]))
        rows.append((name, f"{speeds[0]:.0f}", ratios[0], f"{speeds[1]:.1f}", ratios[1]))
    print_table(("engine", f"prefill {prompt}, tok/s", "Sensorium", f"decode {new}, tok/s", "Sensorium"), rows)
    limit = _bandwidth() / weights
    share = new / decode["Sensorium"] / limit
    print(f"\nReading every weight once a token allows {limit:.0f} tok/s on this machine: {share:.0%} of it.\n")


def _bandwidth() -> float:
    """Bytes a second that a copy of 256 MB reads and writes."""
    source = np.ones(1 << 25)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: np.copyto(target, source)) for _ in range(7))


def _ours(folder: Path) -> Run:
    from sensorium.mobile_export.runtime import Bundle

    runner = Bundle(folder).decoder()

    def run(prompt: list[int], new: int) -> object:
        state = runner.new_state()
        state.reserve(len(prompt) + new)
        logits = runner.read(state, np.array([prompt], np.int64))
        for _ in range(new - 1):
            logits = runner.step(state, logits[:, -1].argmax(-1, keepdims=True).astype(np.int64))
        return logits

    return run


def _genai(folder: Path) -> Run:
    import onnxruntime_genai as genai

    config = genai.Config(str(folder))
    threads = {"intra_op_num_threads": len(os.sched_getaffinity(0))}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    model = genai.Model(config)

    def run(prompt: list[int], new: int) -> object:
        options = genai.GeneratorParams(model)
        length = len(prompt) + new
        options.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = genai.Generator(model, options)
        generator.append_tokens(prompt)
        for _ in range(new):
            generator.generate_next_token()
        return generator.get_next_tokens()

    return run


def _perplexity(folder: Path) -> float:
    """Of the shipped text, a token at a time, as the build's last-position logits give it."""
    import onnxruntime_genai as genai
    from sensorium.mobile_export.texts import EVALUATION, text

    model = genai.Model(str(folder))
    tokens = genai.Tokenizer(model).encode(text(EVALUATION))[:512]
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=len(tokens) + 1)
    generator, logs = genai.Generator(model, options), []
    for token, after in pairwise(tokens):
        generator.append_tokens([int(token)])
        logits = np.asarray(generator.get_logits(), np.float64).reshape(-1)
        logs.append(logits[after] - np.logaddexp.reduce(logits))
    return float(np.exp(-np.mean(logs)))


def _shares(graph: Path, tokens: int) -> None:
    """A table of the operators that a pass over so many new tokens, after 64, spends its time in."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.enable_profiling, options.profile_file_prefix = True, str(graph.parent / "profile")
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {"input_ids": np.arange(1000, 1000 + tokens)[None]}
    feeds["attention_mask"] = np.ones((1, 64 + tokens), np.int64)
    for given in session.get_inputs():
        if given.name.startswith("past"):
            kept_as = np.int8 if given.type == "tensor(int8)" else np.float32
            feeds[given.name] = np.zeros((1, given.shape[1], 64, given.shape[3]), kept_as)
    for _ in range(1 if tokens > 1 else 20):
        session.run(["logits"], feeds)
    spent: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    rows = [(name, f"{took / spent.total():.0%}") for name, took in spent.most_common(7)]
    print_table((f"operator, {tokens} new", "share of the time"), rows)


def _llama(path: Path, length: int) -> Run:
    from llama_cpp import Llama

    threads = len(os.sched_getaffinity(0))
    model = Llama(str(path), n_ctx=length, n_threads=threads, n_threads_batch=threads, verbose=False)

    def run(prompt: list[int], new: int) -> object:
        model.reset()
        return list(islice(model.generate(prompt, temp=0.0), new))

    return run


def _build(checkpoint: Path, out: Path) -> bool:
    """onnxruntime-genai's own int4 build; false and a reason if it cannot be made."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", checkpoint, "-o", out]
    command += ["-p", "int4", "-e", "cpu", "-c", out.parent / "cache"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"onnxruntime-genai's builder failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return done.returncode == 0


def _transformers(folder: Path) -> Run:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    def run(prompt: list[int], new: int) -> object:
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        with torch.inference_mode():
            return model.generate(ids, attention_mask=torch.ones_like(ids), **options)

    return run


def _cold_starts(sources: dict[str, Path], rounds: int) -> None:
    rows = []
    for name, source in sources.items():
        runs = [in_own_process("benchmarks.export", "--cold", name, str(source)) for _ in range(rounds)]
        best = min(runs, key=lambda run: run["seconds"])
        rows.append((name, f"{best['seconds']:.2f} s", f"{best['peak'] / 1e6:.0f} MB", best["text"]))
    print_table(("nano, engine", "process start to the first token", "peak memory", "answer"), rows)


def _cold(engine: str, source: str) -> dict[str, object]:
    """One question in a fresh process, up to its first token."""
    from sensorium import sdk

    text = sdk.load(source, engine=engine).ask(QUESTION, max_new_tokens=1).text
    return {"text": text, "peak": peak_memory()}


if __name__ == "__main__":
    main()
