"""The command line: ``sensorium ask``, ``chat``, ``models``, ``info``, ``export``, ``verify``, ``translate``, ``docs``.

Exit codes: 0 answered; 1 the request or the model failed; 2 the command line was wrong; 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from ..sdk import (
    BundleInfo,
    InvalidInputError,
    ModelInfo,
    Options,
    Part,
    Result,
    SensoriumError,
    card,
    card_names,
    describe,
)
from ..sdk.info import families
from ..sdk.options import options_from
from .bundles import bundle_rows, export_command, verify_command
from .docqa.commands import app as docqa_app
from .loading import Loading, load_model
from .ring import Launch
from .terminal import (
    human_bytes,
    human_count,
    print_answer,
    print_json,
    print_table,
    read_stdin,
    timing_line,
)
from .translate.command import translate_command

__all__ = ["app", "main"]

app = typer.Typer(
    help="Ask, chat with and inspect multimodal language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(name="export")(export_command)
app.command(name="verify")(verify_command)
app.command(name="translate")(translate_command)
app.add_typer(docqa_app, name="docs")

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="Card name, directory, .gguf file or hub repository owner/name.")
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Most tokens to generate.")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token each time.")]
TopP = Annotated[float | None, typer.Option(help="Draw among the likeliest tokens that together have this share.")]
Seed = Annotated[int | None, typer.Option(help="Of the random draws.")]
System = Annotated[str | None, typer.Option(help="A system message.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the model's own if not given.")]
Engine = Annotated[str, typer.Option(help="torch; onnx for exported bundles, and for nano on processors; or auto.")]
Adapter = Annotated[str | None, typer.Option(help="A LoRA directory; of a bundle, an adapter's name beside it.")]
Cache = Annotated[str, typer.Option(help="exact; or int8 or int4, which keep a long text in less memory, at a loss.")]
RollingWindow = Annotated[
    int | None, typer.Option(help="Let texts go on for ever: keep this many of the newest positions. Approximate.")
]
Sinks = Annotated[int, typer.Option(help="Of a rolling text: how many of its first positions stay.")]
Offload = Annotated[str | None, typer.Option(help="A directory on a disk for a text's old keys and values. Exact.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Showing = Annotated[bool, typer.Option("--timings", help="Print a timing summary to standard error.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sensorium {version('sensorium')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ask, chat with and inspect multimodal language models."""


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    files: Annotated[list[str] | None, typer.Argument(help="Files to ask about; - is standard input.")] = None,
    model: ModelName = "nano",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text; may be repeated.")] = None,
    system: System = None,
    raw: Annotated[bool, typer.Option(help="Continue the text as it stands, without the chat template.")] = False,
    device: Device = "auto",
    dtype: Dtype = None,
    engine: Engine = "auto",
    adapter: Adapter = None,
    cache: Cache = "exact",
    rolling: RollingWindow = None,
    sinks: Sinks = 4,
    offload: Offload = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    timings: Showing = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print to standard error how the prompt is made.")] = False,
) -> None:
    """Answer a question, about files if any are given: texts, images, sounds and clips, told by their content."""
    parts = _parts(question, files or [])
    options: Options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    options |= {"seed": seed, "stop": stop or None}
    options_from(options, {})  # a wrong option is told before a model is loaded
    loading = Loading(
        device=device,
        dtype=dtype,
        engine=engine,
        adapter=adapter,
        cache=cache,
        rolling=rolling,
        sinks=sinks,
        offload=offload,
    )
    loaded = load_model(model, loading, quiet=quiet or as_json, timings=timings)
    if explain:
        print(loaded.explain(*parts, system=system, raw=raw), file=sys.stderr)
    answer = loaded.stream(*parts, system=system, raw=raw, **options)
    if as_json:
        print_json({"model": model, **answer.result.to_dict()})
    else:
        print_answer(answer)
    _tell(answer.result, quiet=quiet or as_json)
    if timings:
        print(timing_line(answer.result), file=sys.stderr)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def ring(
    arguments: Annotated[list[str], typer.Argument(help="What `sensorium ask` takes: a question, files, options.")],
    processes: Annotated[int, typer.Option(help="Processes on this host.")] = 2,
    hosts: Annotated[int, typer.Option(help="Hosts that take part; start this command on each.")] = 1,
    host_rank: Annotated[int, typer.Option(help="Which of the hosts this is, from 0.")] = 0,
    rendezvous: Annotated[str | None, typer.Option(help="Where hosts meet: the first one's name:port.")] = None,
) -> None:
    """Ask about texts that are shared by many processes, on one host or several."""
    command = Launch(processes, hosts, host_rank, rendezvous).command(arguments)
    share = max(1, (os.cpu_count() or 1) // processes)
    done = subprocess.run(command, env={"OMP_NUM_THREADS": str(share)} | os.environ, check=False)
    raise typer.Exit(1 if done.returncode else 0)


@app.command()
def chat(
    model: ModelName = "nano",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    device: Device = "auto",
    dtype: Dtype = None,
    engine: Engine = "auto",
    adapter: Adapter = None,
    cache: Cache = "exact",
    rolling: RollingWindow = None,
    sinks: Sinks = 4,
    offload: Offload = None,
    quiet: Quiet = False,
    timings: Showing = False,
) -> None:
    """Talk with a model, and show it files; /help lists what it knows, /quit or the end of input ends it."""
    from .chat import Conversation, converse

    options: Options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    options_from(options, {})
    loading = Loading(
        device=device,
        dtype=dtype,
        engine=engine,
        adapter=adapter,
        cache=cache,
        rolling=rolling,
        sinks=sinks,
        offload=offload,
    )
    loaded = load_model(model, loading, quiet=quiet, timings=timings)
    refused = False
    for result in converse(Conversation(loaded, system, options)):
        if result is None:
            refused = True
            continue
        _tell(result, quiet=quiet)
        if timings:
            print(timing_line(result), file=sys.stderr)
    if refused and not sys.stdin.isatty():
        raise typer.Exit(1)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that have a name, and the families of others that can be loaded."""
    cards = [card(name) for name in card_names()]
    sizes = [sum(part.size for part in c.parts) for c in cards]
    if as_json:
        facts = zip(cards, sizes, strict=True)
        listed = [{"name": c.name, "summary": c.summary, "licence": c.licence, "bytes": size} for c, size in facts]
        print_json({"models": listed, "families": list(families())})
        return
    rows = [(c.name, human_bytes(size), c.licence, c.summary) for c, size in zip(cards, sizes, strict=True)]
    print_table(("NAME", "SIZE", "LICENCE", "SUMMARY"), rows)
    print(f"\nfamilies: {', '.join(families())}")


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Card name, directory, .gguf file or hub repository owner/name.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a model's size, shape and memory, without loading it; of a bundle, what it reads and how good it is."""
    found = describe(model, quiet=quiet or as_json)
    if as_json:
        print_json({**found.to_dict(), "families": list(families())})
        return
    print_table(None, bundle_rows(found) if isinstance(found, BundleInfo) else _model_rows(found))


def _model_rows(found: ModelInfo) -> list[tuple[str, str]]:
    cache = found.cache_bytes_per_token
    return [
        ("model", found.name),
        ("family", found.family),
        ("parameters", human_count(found.parameters)),
        ("reads", ", ".join(found.modalities)),
        ("stored as", found.stored_as),
        ("memory, weights", f"{human_bytes(found.weight_bytes)} as {found.dtype}"),
        ("memory, cache", f"{human_bytes(cache)} a token, {human_bytes(cache * found.context_length)} at full length"),
        ("context", f"{found.context_length} tokens"),
        ("vocabulary", f"{found.vocabulary_size} tokens"),
        ("layers", f"{found.layers} of width {found.hidden_size}"),
        ("heads", f"{found.heads} query, {found.kv_heads} key/value"),
        ("files", found.path),
        ("known families", ", ".join(families())),
    ]


def main() -> None:
    """The entry point: runs a command and turns errors into a message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows ? for it
    try:
        code = app(standalone_mode=False)
    except SensoriumError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except typer.Abort:
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader has gone; what Python would flush at exit must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        error.show()  # type: ignore[attr-defined]  # click's own usage errors
        raise SystemExit(error.exit_code) from None  # type: ignore[attr-defined]
    if code == 130:
        print(file=sys.stderr)  # the shell's prompt begins on its own line
    raise SystemExit(code or 0)


def _parts(question: str, files: list[str]) -> list[Part]:
    """The question, then the files in order; standard input can stand for one of them."""
    if [question, *files].count("-") > 1:
        raise InvalidInputError("Standard input can be read once.", given="- several times", expected="- once")
    for file in files:
        if file != "-" and not Path(file).is_file():  # told before a model is loaded
            raise InvalidInputError("There is no such file.", given=file, expected="a file that exists")
    if not files and not question.strip():
        raise InvalidInputError("The question is empty.", given=json.dumps(question), expected="some text")
    first = read_stdin() if question == "-" else question
    rest: list[Part] = [read_stdin() if file == "-" else Path(file) for file in files]
    if isinstance(first, str):
        first = first.rstrip("\n")
    return rest if isinstance(first, str) and not first.strip() else [first, *rest]


def _tell(result: Result, *, quiet: bool) -> None:
    """What a person should know of an answer, on standard error."""
    if result.finish_reason == "length" and not quiet:
        count = result.usage.new_tokens
        print(f"[ended after {count} tokens; --max-new-tokens allows more]", file=sys.stderr)


if __name__ == "__main__":
    main()
