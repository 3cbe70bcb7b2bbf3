"""The commands that make and check on-device bundles."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..sdk import BundleInfo, InvalidInputError, SensoriumError, export, verify
from ..sdk.info import bundle_info
from .terminal import human_bytes, print_json, print_table

__all__ = ["bundle_rows", "export_command", "verify_command"]

_FIGURES = {"perplexity", "perplexity_source", "kl", "agreement", "answers", "answers_changed"}
_PROMPT_FIGURES = {"prompt_perplexity", "prompt_kl", "prompt_agreement"}
_VECTOR_FIGURES = {"cosine", "cosine_least", "same_nearest", "texts"}
ContextLength = Annotated[int | None, typer.Option(help="Positions that it can hold; the model's own if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def export_command(
    model: Annotated[str, typer.Argument(help="Card name, directory, .gguf file or hub repository owner/name.")],
    out: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    quant: Annotated[
        str,
        typer.Option(
            help="fp32, fp16, int8, int8-fp32, int4, int4-fast, int4-fp32 or mixed; +int8-prompts behind it for "
            "prompts read faster by more weights, +int8-cache for less memory of long texts."
        ),
    ] = "int4",
    target: Annotated[
        str, typer.Option(help="onnx, genai, web; android or ios for own builds of ONNX Runtime: text, in ORT format.")
    ] = "onnx",
    adapter: Annotated[str | None, typer.Option(help="A LoRA directory that is merged into the model.")] = None,
    adapter_beside: Annotated[
        list[str] | None, typer.Option(help="A LoRA directory that is written beside the model; may be given again.")
    ] = None,
    context_length: ContextLength = None,
    modalities: Annotated[
        str | None, typer.Option(help="What it reads, e.g. text,image; all it can, if not given.")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Measure how it compares with its source, which takes longest.")] = True,
    archive: Annotated[Path | None, typer.Option(help="Write the bundle into one file, too.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Export a model for phones and edge devices, with the proof of how well it still answers."""
    if archive is not None and archive.exists():
        raise InvalidInputError("There is such a file already.", given=str(archive), hint="choose another name")
    silent = quiet or as_json

    def tell(step: str) -> None:
        if not silent:
            print(f"{step} …", file=sys.stderr)

    chosen = {
        "quant": quant,
        "target": target,
        "adapter": adapter,
        "adapters_beside": adapter_beside or (),
        "context_length": context_length,
        "overwrite": overwrite,
        "figures": figures,
    }
    chosen["modalities"] = None if modalities is None else modalities.split(",")
    manifest = export(model, out, **chosen, quiet=silent, tell=tell)  # type: ignore[arg-type]
    if archive is not None:
        from ..mobile_export.bundle import pack

        tell("packing")
        pack(out, archive)
    if as_json:
        print_json(asdict(manifest))
        return
    print_table(None, bundle_rows(bundle_info(out, name=str(out))))


def bundle_rows(found: BundleInfo) -> list[tuple[str, str]]:
    """What is shown of a bundle: names and values."""
    limits = {kind: _limits(numbers) for kind, numbers in found.limits.items()}
    rows = [
        ("bundle", found.name),
        ("made from", " ".join(filter(None, (found.source, found.licence and f"({found.licence})")))),
        ("family", found.family),
        ("format", str(found.format)),
        ("reads", ", ".join(f"{kind} ({limits[kind]})" if limits.get(kind) else kind for kind in found.modalities)),
        ("quantization", found.quantization),
        ("target", found.target),
        ("size", human_bytes(found.bytes)),
        ("context", f"{found.context_length} tokens"),
    ]
    if found.adapters:
        rows.append(("adapters beside", ", ".join(found.adapters)))
    figures = found.figures
    if figures.keys() >= _FIGURES:
        changed = f"{figures['answers_changed']:.0f} of {figures['answers']:.0f} answers changed"
        divergence = f"{figures['kl']:.4f} nats; {figures['agreement']:.1%} of next tokens the same; {changed}"
        rows += [
            ("perplexity", f"{figures['perplexity']:.2f}; {figures['perplexity_source']:.2f} before"),
            ("divergence", divergence),
        ]
    if figures.keys() >= _PROMPT_FIGURES:
        same = f"{figures['prompt_agreement']:.1%} of next tokens the same"
        rows.append(
            ("prompts", f"perplexity {figures['prompt_perplexity']:.2f}; {figures['prompt_kl']:.4f} nats; {same}")
        )
    if figures.keys() >= _VECTOR_FIGURES:
        cosines = f"{figures['cosine']:.5f} on average, {figures['cosine_least']:.5f} at least"
        same = f"{figures['same_nearest']:.1%} of {figures['texts']:.0f} texts have the same nearest one"
        rows.append(("cosine with before", f"{cosines}; {same}"))
    return rows


def _limits(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} to {number:,.10g}" for name, number in numbers.items())


def verify_command(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")], as_json: AsJson = False
) -> None:
    """Check that a bundle is whole, and that it answers on this device as where it was made."""
    found = verify(bundle)
    if as_json:
        print_json({"passed": found.passed, "goldens": [asdict(golden) for golden in found.goldens]})
    else:
        rows = [
            (
                golden.name,
                "passed" if golden.passed else "FAILED",
                f"{golden.difference:.4f} of {golden.tolerance:g}",
                f"{golden.same_tokens} of {golden.tokens}" if golden.tokens else "–",
            )
            for golden in found.goldens
        ]
        print_table(("GOLDEN", "RESULT", "DIFFERS BY", "SAME TOKENS"), rows)
        print(f"\n{len(found.manifest.files)} files are as they were exported")
    if not found.passed:
        failed = ", ".join(golden.name for golden in found.goldens if not golden.passed)
        raise SensoriumError("The bundle does not answer here as where it was made.", given=failed)
