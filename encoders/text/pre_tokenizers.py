"""How each model family cuts text before byte-level BPE, by the name that a GGUF file gives it.

The expressions are those of the families' own tokenizer.json.
"""

from __future__ import annotations

from tokenizers import Regex, normalizers, pre_tokenizers

from ..errors import TokenizerError

__all__ = ["KNOWN", "TEKKEN", "adds_bos", "ignores_merges", "normalizer", "pre_tokenizer"]

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

_LLAMA3 = (f"{_CONTRACTION}|{_WORD}|" + r"\p{N}{1,3}" + f"|{_SIGNS}|{_LINES_AND_SPACES}",)
_QWEN2 = (f"{_CONTRACTION}|{_WORD}|" + r"\p{N}" + f"|{_SIGNS}|{_LINES_AND_SPACES}",)
_MARKED_WORD = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
_QWEN35 = (f"{_CONTRACTION}|{_MARKED_WORD}|" + r"\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + f"|{_LINES_AND_SPACES}",)
#: How Mistral's Tekken cuts.
TEKKEN = "|".join((*_CASED, r"\p{N}", _SIGNS_AND_SLASHES, _LINES_AND_SPACES))
_GPT4O = (
    "|".join((*(f"{word}{_CONTRACTION}?" for word in _CASED), r"\p{N}{1,3}", _SIGNS_AND_SLASHES, _LINES_AND_SPACES)),
)
# Letters with case, as DeepSeek's list of ranges has them; Armenian and Georgian small letters are not in it. Written
# as numbers, because some of the letters are not in normal form: an editor may silently turn them into others.
_DEEPSEEK_RANGES = (
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386 388-38A 38C "
    "38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B "
    "1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 "
    "1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 "
    "2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183-2184 2C00-2C7B "
    "2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 "
    "FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF "
    "1E900-1E943"
)
_DEEPSEEK_LETTERS = "".join(
    rf"\x{{{first}}}-\x{{{last or first}}}"
    for first, _, last in (letters.partition("-") for letters in _DEEPSEEK_RANGES.split())
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
_LLAMA3_NAMES = (
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "jina-v5-nano",
)
_REGEXES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_LLAMA3_NAMES, "smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "grok-2", "kormo", "f2llmv2", "megrez"), _QWEN2),
    "qwen35": _QWEN35,
    "tekken": (TEKKEN,),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _GPT4O),
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
    return normalizers.NFC() if name in ("qwen2", "qwen35", "deepseek-r1-qwen") else None


def ignores_merges(name: str) -> bool:
    """Whether a piece that is a token stays whole although no merges lead to it."""
    return name in _LLAMA3_NAMES or name == "tekken"


def adds_bos(name: str) -> bool:
    """Whether texts begin with BOS where the file does not say."""
    return name in _LLAMA3_NAMES or name == "tekken"
