"""The translation app: texts, Markdown and subtitles, with everything that is not words left as it is."""

from .documents import Part, Summary, translate
from .glossary import Glossary, read_glossary
from .languages import Language, language
from .translator import Outcome

__all__ = ["Glossary", "Language", "Outcome", "Part", "Summary", "language", "read_glossary", "translate"]
