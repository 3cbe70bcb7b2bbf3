"""How a model is asked for a translation: examples, then the text. Any instruction model goes on with the pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...sdk import Message
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
_ANSWER = "Answer with the translation alone, in one line."
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


def prompt_for(request: Request, *, chat: bool) -> str | list[Message]:
    """The prompt; an answer to it is one line.

    Args:
        request: what is to be translated.
        chat: the examples as turns of a conversation; else as a text that the model continues.
    """
    pairs = _examples(request.source, request.target, marks=bool(MARK.search(request.text)))
    pairs += [request.before] if request.before else []
    wishes = [_ANSWER, *_wishes(request)]
    if not chat:
        source, target = request.source.name, request.target.name
        patterns = [f"{source}: {text}\n{target}: {translation}" for text, translation in pairs]
        task = " ".join([_task(request), *wishes])
        return "\n\n".join([task, *patterns, f"{source}: {request.text}\n{target}:"])
    messages: list[Message] = []
    for text, translation in pairs:
        messages.append({"role": "user", "content": f"{_task(request)} {_ANSWER}\n\n{text}"})
        messages.append({"role": "assistant", "content": translation})
    return [*messages, {"role": "user", "content": f"{' '.join([_task(request), *wishes])}\n\n{request.text}"}]


def _task(request: Request) -> str:
    return f"Translate from {request.source.name} to {request.target.name}."


def _wishes(request: Request) -> list[str]:
    """What this text needs besides."""
    wishes: list[str] = []
    if marks := MARK.findall(request.text):
        told = ", ".join(f"{{{number}}}" for number in marks)
        wishes.append("Keep marks such as {1} as they are.")
        wishes += [f"The translation must contain each of {told} once."] if request.again else []
    if request.terms:
        told = "; ".join(f"{term} = {translation}" for term, translation in request.terms.items())
        wishes.append(f"{'The translation must use' if request.again else 'Use'} these terms: {told}.")
    return wishes


def answer_of(text: str, request: Request) -> str:
    """The translation in an answer: its first line, without a label or quotation marks, which models like to add."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = line.removeprefix(f"{request.target.name}:").strip()
    for opening, closing in _QUOTES:
        quoted = len(line) > 1 and line.startswith(opening) and line.endswith(closing)
        if quoted and not request.text.startswith(tuple(opening for opening, _ in _QUOTES)):
            line = line[1:-1].strip()
    return line


def _examples(source: Language, target: Language, *, marks: bool) -> list[tuple[str, str]]:
    """A text without marks gets no example with them: small models would write marks of their own."""
    if source.base == target.base:
        return []
    pairs = list(zip(_EXAMPLES.get(source.base, ()), _EXAMPLES.get(target.base, ()), strict=False))
    return pairs if marks else pairs[:-1]
