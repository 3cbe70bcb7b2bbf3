"""How a model is asked for a translation: examples, then the text; any instruction model goes on with the pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .languages import Language
from .masks import MARK

__all__ = ["VERSION", "Request", "answer_of", "prompt_for"]

#: Changes with the wording, so that translations kept from an older one are not taken up.
VERSION = 1

# The same three sentences in each language: any two of them are examples.
_EXAMPLES = {
    "de": (
        "Guten Morgen, wie geht es Ihnen?",
        "Das Haus am Fluss ist sehr alt.",
        "Klicken Sie auf {1}, um zu speichern.",
    ),
    "en": ("Good morning, how are you?", "The house by the river is very old.", "Click {1} to save."),
    "es": ("Buenos días, ¿cómo está usted?", "La casa junto al río es muy vieja.", "Haga clic en {1} para guardar."),
    "fr": (
        "Bonjour, comment allez-vous ?",
        "La maison au bord de la rivière est très vieille.",
        "Cliquez sur {1} pour enregistrer.",
    ),
    "it": ("Buongiorno, come sta?", "La casa sul fiume è molto vecchia.", "Fare clic su {1} per salvare."),
    "ja": ("おはようございます、お元気ですか。", "川のそばの家はとても古いです。", "{1} をクリックして保存します。"),
    "nl": ("Goedemorgen, hoe gaat het met u?", "Het huis aan de rivier is erg oud.", "Klik op {1} om op te slaan."),
    "pl": ("Dzień dobry, jak się pan ma?", "Dom nad rzeką jest bardzo stary.", "Kliknij {1}, aby zapisać."),
    "pt": ("Bom dia, como está?", "A casa junto ao rio é muito antiga.", "Clique em {1} para salvar."),
    "ru": ("Доброе утро, как поживаете?", "Дом у реки очень старый.", "Нажмите {1}, чтобы сохранить."),
    "sv": ("God morgon, hur mår du?", "Huset vid floden är mycket gammalt.", "Klicka på {1} för att spara."),
    "zh": ("早上好，您好吗？", "河边的房子很旧。", "点击 {1} 保存。"),
}
_QUOTES = (("“", "”"), ('"', '"'), ("«", "»"), ("'", "'"), ("„", "“"))


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be translated.

    Attributes:
        text: one line, masked.
        source: its language.
        target: that of the translation.
        terms: of the glossary, that occur in it.
        before: the text before it with its translation, both masked, or None.
        again: whether an answer was not good: what must be kept is told more plainly.
    """

    text: str
    source: Language
    target: Language
    terms: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, str] | None = None
    again: bool = False


def prompt_for(request: Request) -> str:
    """The prompt; an answer to it is one line."""
    source, target = request.source, request.target
    lines = [f"Translate from {source.name} to {target.name}. Answer with the translation alone, in one line."]
    if marks := MARK.findall(request.text):
        told = ", ".join(f"{{{number}}}" for number in marks)
        only = f"The translation must contain each of {told} once." if request.again else ""
        lines.append(f"Keep marks such as {{1}} as they are. {only}".rstrip())
    if request.terms:
        lines.append("The translation must use these terms:" if request.again else "Use these terms:")
        lines += [f"- {term} = {translation}" for term, translation in request.terms.items()]
    pairs = [*_examples(source, target), *([request.before] if request.before else [])]
    patterns = [f"{source.name}: {text}\n{target.name}: {translation}" for text, translation in pairs]
    return "\n\n".join(["\n".join(lines), *patterns, f"{source.name}: {request.text}\n{target.name}:"])


def answer_of(text: str, request: Request) -> str:
    """The translation in an answer: its first line, without the label or the quotation marks that models like to add."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = line.removeprefix(f"{request.target.name}:").strip()
    for opening, closing in _QUOTES:
        quoted = len(line) > 1 and line.startswith(opening) and line.endswith(closing)
        if quoted and request.text[:1] not in "“\"«'„":
            line = line[1:-1].strip()
    return line


def _examples(source: Language, target: Language) -> list[tuple[str, str]]:
    if source.base == target.base:
        return []
    return list(zip(_EXAMPLES.get(source.base, ()), _EXAMPLES.get(target.base, ()), strict=False))
