"""Languages by their ISO codes and English names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass

from ...sdk import InvalidInputError

__all__ = ["Language", "language", "written_in"]

# ISO 639-1, and what is spoken by many and has three letters only.
_NAMES = """
aa Afar, ab Abkhazian, af Afrikaans, ak Akan, am Amharic, an Aragonese, ar Arabic, as Assamese, av Avaric, ay Aymara,
az Azerbaijani, ba Bashkir, be Belarusian, bg Bulgarian, bi Bislama, bm Bambara, bn Bengali, bo Tibetan, br Breton, bs
Bosnian, ca Catalan, ce Chechen, ch Chamorro, co Corsican, cr Cree, cs Czech, cu Church Slavic, cv Chuvash, cy Welsh,
da Danish, de German, dv Divehi, dz Dzongkha, ee Ewe, el Greek, en English, eo Esperanto, es Spanish, et Estonian, eu
Basque, fa Persian, ff Fulah, fi Finnish, fj Fijian, fo Faroese, fr French, fy Western Frisian, ga Irish, gd Scottish
Gaelic, gl Galician, gn Guarani, gu Gujarati, gv Manx, ha Hausa, he Hebrew, hi Hindi, ho Hiri Motu, hr Croatian, ht
Haitian Creole, hu Hungarian, hy Armenian, hz Herero, ia Interlingua, id Indonesian, ie Interlingue, ig Igbo, ii
Sichuan Yi, ik Inupiaq, io Ido, is Icelandic, it Italian, iu Inuktitut, ja Japanese, jv Javanese, ka Georgian, kg
Kongo, ki Kikuyu, kj Kuanyama, kk Kazakh, kl Kalaallisut, km Khmer, kn Kannada, ko Korean, kr Kanuri, ks Kashmiri, ku
Kurdish, kv Komi, kw Cornish, ky Kyrgyz, la Latin, lb Luxembourgish, lg Ganda, li Limburgish, ln Lingala, lo Lao, lt
Lithuanian, lu Luba-Katanga, lv Latvian, mg Malagasy, mh Marshallese, mi Maori, mk Macedonian, ml Malayalam, mn
Mongolian, mr Marathi, ms Malay, mt Maltese, my Burmese, na Nauru, nb Norwegian Bokmål, nd North Ndebele, ne Nepali,
ng Ndonga, nl Dutch, nn Norwegian Nynorsk, no Norwegian, nr South Ndebele, nv Navajo, ny Chichewa, oc Occitan, oj
Ojibwa, om Oromo, or Odia, os Ossetian, pa Punjabi, pi Pali, pl Polish, ps Pashto, pt Portuguese, qu Quechua, rm
Romansh, rn Rundi, ro Romanian, ru Russian, rw Kinyarwanda, sa Sanskrit, sc Sardinian, sd Sindhi, se Northern Sami, sg
Sango, si Sinhala, sk Slovak, sl Slovenian, sm Samoan, sn Shona, so Somali, sq Albanian, sr Serbian, ss Swati, st
Southern Sotho, su Sundanese, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai, ti Tigrinya, tk Turkmen,
tl Tagalog, tn Tswana, to Tonga, tr Turkish, ts Tsonga, tt Tatar, tw Twi, ty Tahitian, ug Uyghur, uk Ukrainian, ur
Urdu, uz Uzbek, ve Venda, vi Vietnamese, vo Volapük, wa Walloon, wo Wolof, xh Xhosa, yi Yiddish, yo Yoruba, za Zhuang,
zh Chinese, zu Zulu, fil Filipino, yue Cantonese, ceb Cebuano, ckb Central Kurdish, gsw Swiss German, haw Hawaiian,
hmn Hmong
"""
_REGIONS = """
AR Argentina, AT Austria, AU Australia, BE Belgium, BO Bolivia, BR Brazil, CA Canada, CH Switzerland, CL Chile, CN
China, CO Colombia, CR Costa Rica, CU Cuba, CZ Czechia, DE Germany, DK Denmark, DO Dominican Republic, EC Ecuador, EG
Egypt, ES Spain, FI Finland, FR France, GB United Kingdom, GR Greece, GT Guatemala, HK Hong Kong, HN Honduras, HU
Hungary, ID Indonesia, IE Ireland, IL Israel, IN India, IR Iran, IT Italy, JP Japan, KE Kenya, KR Korea, LU
Luxembourg, MA Morocco, MX Mexico, MY Malaysia, NG Nigeria, NI Nicaragua, NL Netherlands, NO Norway, NZ New Zealand,
PA Panama, PE Peru, PH Philippines, PK Pakistan, PL Poland, PR Puerto Rico, PT Portugal, PY Paraguay, RO Romania, RU
Russia, SA Saudi Arabia, SE Sweden, SG Singapore, SK Slovakia, SV El Salvador, TH Thailand, TR Turkey, TW Taiwan, UA
Ukraine, US United States, UY Uruguay, VE Venezuela, VN Vietnam, ZA South Africa, 419 Latin America
"""
_SCRIPTS = {"hans": "Simplified", "hant": "Traditional", "latn": "Latin", "cyrl": "Cyrillic", "arab": "Arabic"}
# How Unicode's names of the letters begin; of languages that are written in no other script.
_LETTERS = {
    "CYRILLIC": "ab ba be bg ce cv kk ky mk mn os ru tg tt uk",
    "ARABIC": "ar ckb fa ps sd ug ur",
    "HEBREW": "he yi",
    "GREEK": "el",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "as bn",
    "CJK": "zh yue",
    "HIRAGANA|KATAKANA|CJK": "ja",
    "HANGUL": "ko",
    "THAI": "th",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "ETHIOPIC": "am ti",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "KANNADA": "kn",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "TIBETAN": "bo dz",
}


def _table(text: str) -> dict[str, str]:
    entries = (entry.strip().split(" ", 1) for entry in text.replace("\n", " ").split(","))
    return {code: name.strip() for code, name in entries}


_LANGUAGES = _table(_NAMES)
_COUNTRIES = _table(_REGIONS)
_SCRIPT_OF = {code: prefix for prefix, codes in _LETTERS.items() for code in codes.split()}


@dataclass(frozen=True, slots=True)
class Language:
    """A language.

    Attributes:
        code: ISO 639, with a script and a region where they were given: ``fr``, ``pt-BR``, ``zh-Hant``.
        name: in English, as a model is told it: ``French``, ``Portuguese (Brazil)``.
    """

    code: str
    name: str

    @property
    def base(self) -> str:
        """The code without script and region."""
        return self.code.partition("-")[0]


def language(given: str) -> Language:
    """A language by its code or its English name; case does not matter.

    Raises:
        InvalidInputError: no such language, script or region; tells near ones.
    """
    wanted = given.strip()
    by_name = {name.casefold(): code for code, name in _LANGUAGES.items()}
    if wanted.casefold() in by_name:
        code = by_name[wanted.casefold()]
        return Language(code, _LANGUAGES[code])
    base, *tags = re.split("[-_]", wanted)
    base = base.lower()
    if base not in _LANGUAGES:
        raise _unknown("There is no such language.", given, [*_LANGUAGES, *_LANGUAGES.values()])
    code, told = base, []
    for tag in tags:
        if tag.lower() in _SCRIPTS and not told:
            code, told = f"{code}-{tag.title()}", [_SCRIPTS[tag.lower()]]
        elif tag.upper() in _COUNTRIES and code.count("-") == len(told) and tag is tags[-1]:
            code, told = f"{code}-{tag.upper()}", [*told, _COUNTRIES[tag.upper()]]
        else:
            problem = f"{_LANGUAGES[base]} has no such script or region here."
            raise _unknown(problem, given, [f"{base}-{region}" for region in _COUNTRIES])
    return Language(code, _LANGUAGES[base] + (f" ({', '.join(told)})" if told else ""))


def written_in(text: str, target: Language) -> bool:
    """Whether any letter of a text is of the script in which a language is always written; True where there is none."""
    prefix = _SCRIPT_OF.get(target.base)
    if prefix is None or "Latn" in target.code:
        return True
    prefixes = tuple(prefix.split("|"))
    return any(unicodedata.name(letter, "").startswith(prefixes) for letter in text)


def _unknown(problem: str, given: str, known: list[str]) -> InvalidInputError:
    folded = {word.casefold(): word for word in known}
    near = [folded[word] for word in difflib.get_close_matches(given.casefold().replace("_", "-"), folded, 3, 0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else None
    expected = "an ISO 639 code or an English name: fr, French, pt-BR"
    return InvalidInputError(problem, given=given, expected=expected, hint=hint)
