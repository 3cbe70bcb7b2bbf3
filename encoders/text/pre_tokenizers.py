"""How each model family cuts text before byte-level BPE, by the name that a GGUF file gives it.

The expressions are those of the families' own tokenizer.json.
"""

from __future__ import annotations

from tokenizers import Regex, normalizers, pre_tokenizers

from ..errors import TokenizerError

__all__ = ["KNOWN", "adds_bos", "ignores_merges", "normalizer", "pre_tokenizer"]

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

_LLAMA3 = (f"{_CONTRACTION}|{_WORD}|" + r"\p{N}{1,3}" + f"|{_SIGNS}|{_LINES_AND_SPACES}",)
_QWEN2 = (f"{_CONTRACTION}|{_WORD}|" + r"\p{N}" + f"|{_SIGNS}|{_LINES_AND_SPACES}",)
_TEKKEN = ("|".join((*_CASED, r"\p{N}", _SIGNS_AND_SLASHES, _LINES_AND_SPACES)),)
_GPT4O = (
    "|".join((*(f"{word}{_CONTRACTION}?" for word in _CASED), r"\p{N}{1,3}", _SIGNS_AND_SLASHES, _LINES_AND_SPACES)),
)
# Letters with case, as DeepSeek's list of ranges has them; Armenian and Georgian small letters are not in it.
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼι"
    "ῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_CJK = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_LLM = (r"[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _CJK)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    + _LINES_AND_SPACES,
)

# Llama 3's kin begin every text with BOS and take a word that is a token whole, whatever the merges say.
_LLAMA3_NAMES = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
_REGEXES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_LLAMA3_NAMES, "smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "grok-2"), _QWEN2),
    "tekken": _TEKKEN,
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _GPT4O),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    "deepseek-v3": _DEEPSEEK3,
}
_GPT2 = ("gpt-2", "gpt2", "default", "phi-2", "mpt", "olmo", "jais")
_SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_DIGITS_AFTER = ("deepseek-llm", "deepseek-coder")

#: Every name that is known.
KNOWN = tuple(sorted((*_REGEXES, *_GPT2, *_SINGLE_DIGITS)))


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer that a GGUF file calls `name`.

    Raises:
        TokenizerError: the name is not known; guessing would give other tokens than the model was trained on.
    """
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    if name in _GPT2:
        return plain
    if name in _SINGLE_DIGITS:
        return pre_tokenizers.Sequence([digits, plain])  # type: ignore[list-item]
    if name not in _REGEXES:
        raise TokenizerError(
            "The GGUF file cuts text in a way that Sensorium does not know.",
            given=f"tokenizer.ggml.pre = {name[:100]}",
            expected=f"one of {', '.join(KNOWN)}",
            hint="load the model from its Hugging Face directory instead",
        )
    cuts = [pre_tokenizers.Split(Regex(expression), behavior="isolated") for expression in _REGEXES[name]]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*cuts, *([digits] if name in _DIGITS_AFTER else []), last])  # type: ignore[list-item]


def normalizer(name: str) -> normalizers.Normalizer | None:
    """What is done to a text before it is cut, None for nothing."""
    return normalizers.NFC() if name in ("qwen2", "deepseek-r1-qwen") else None


def ignores_merges(name: str) -> bool:
    """Whether a piece that is a token stays whole although no merges lead to it."""
    return name in _LLAMA3_NAMES or name == "tekken"


def adds_bos(name: str) -> bool:
    """Whether texts begin with BOS where the file does not say."""
    return name in _LLAMA3_NAMES or name == "tekken"
