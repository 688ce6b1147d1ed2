"""Is a text in the language it was asked for in? Judged on three pieces of it, and only when it is certain.

English, which most texts are asked for in, is known by its commonest words, in a tenth of the time that
`py3langid` takes; that judges the rest. Neighbours that are told apart badly count as one language.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sdf.checks.subject import Checks, Subject

# Below this a title or a greeting decides.
FEWEST_LETTERS = 120
PIECE, N_PIECES = 240, 3
# py3langid is sure of long English at 1.0; code and lists of names stay below.
CERTAIN = 0.99
# In English prose a third of the words are among these; in German, French or Dutch one in thirty.
ENGLISH_SHARE = 0.15
_ENGLISH = frozenset(
    # A list of quoted words would hide them.
    """the of and to a in that is was it for on with he as i his at be by had not are but from or have an they which you
    were her all she there would their we him been has when who will no more if out so said what up its about than into
    them can only other new some could these two may then do first any my now such like our over me even most""".split()  # noqa: SIM905
)
# The names an axis may use; a longer value ("Brazilian Portuguese") counts by the name it holds.
_CODES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "portuguese": "pt", "italian": "it",
    "dutch": "nl", "polish": "pl", "czech": "cs", "slovak": "sk", "hungarian": "hu", "romanian": "ro",
    "bulgarian": "bg", "greek": "el", "turkish": "tr", "russian": "ru", "ukrainian": "uk", "serbian": "sr",
    "croatian": "hr", "bosnian": "bs", "slovenian": "sl", "finnish": "fi", "estonian": "et", "latvian": "lv",
    "lithuanian": "lt", "swedish": "sv", "norwegian": "no", "danish": "da", "icelandic": "is", "irish": "ga",
    "welsh": "cy", "basque": "eu", "catalan": "ca", "galician": "gl", "arabic": "ar", "hebrew": "he",
    "persian": "fa", "farsi": "fa", "urdu": "ur", "hindi": "hi", "bengali": "bn", "marathi": "mr", "nepali": "ne",
    "gujarati": "gu", "punjabi": "pa", "tamil": "ta", "telugu": "te", "kannada": "kn", "malayalam": "ml",
    "sinhala": "si", "thai": "th", "lao": "lo", "khmer": "km", "vietnamese": "vi", "indonesian": "id",
    "malay": "ms", "javanese": "jv", "tagalog": "tl", "filipino": "tl", "swahili": "sw", "amharic": "am",
    "xhosa": "xh", "zulu": "zu", "afrikaans": "af", "chinese": "zh", "mandarin": "zh", "japanese": "ja",
    "korean": "ko", "georgian": "ka", "armenian": "hy", "kazakh": "kk", "mongolian": "mn", "esperanto": "eo",
    "latin": "la", "albanian": "sq", "macedonian": "mk",
}  # fmt: skip
# Where one language is written by nearly everybody. Elsewhere "the language of the place" could be several.
_PLACES = {
    "japan": "ja", "korea": "ko", "china": "zh", "vietnam": "vi", "indonesia": "id", "turkey": "tr", "iran": "fa",
    "georgia": "ka", "armenia": "hy", "poland": "pl", "finland": "fi", "hungary": "hu", "greece": "el", "germany": "de",
    "france": "fr", "italy": "it", "spain": "es", "portugal": "pt", "netherlands": "nl", "sweden": "sv", "norway": "no",
    "denmark": "da", "czechia": "cs", "romania": "ro", "bulgaria": "bg", "russia": "ru", "brazil": "pt", "mexico": "es",
    "peru": "es", "argentina": "es", "chile": "es", "colombia": "es", "egypt": "ar", "thailand": "th", "britain": "en",
    "america": "en", "iceland": "is", "lithuania": "lt", "latvia": "lv", "estonia": "et", "croatia": "hr",
}  # fmt: skip
# Told apart by a word here and there: a verdict between two of one family is none.
_FAMILIES = tuple(
    frozenset(codes.split())
    for codes in (
        "no nb nn da sv", "hr sr bs sl mk bg", "id ms jv", "es gl pt ca an", "hi mr ne", "cs sk", "af nl", "xh zu",
        "ur fa ar ps", "ru uk be bg mk", "fi et", "fr oc wa", "de lb",
    )
)  # fmt: skip


def language(subject: Subject, _: Checks) -> bool:
    """The text is certainly in another language than the one asked for."""
    asked = subject.language
    if asked is None:
        return False
    found = language_of(subject.text)
    return found not in (None, asked) and not any({asked, found} <= family for family in _FAMILIES)


def asked_language(name: str, place: str | None = None) -> str | None:
    """The code of a language by its English name or code, or as that of the place; None where nothing is judged."""
    words = re.findall(r"[a-z]+", name.lower())
    if "place" in words and place is not None:
        return _PLACES.get(place)
    if len(words) == 1 and words[0] in _CODES.values():
        return words[0]
    return next((_CODES[word] for word in words if word in _CODES), None)


def language_of(text: str) -> str | None:
    """The code of its language; None when it is too short or not certain."""
    sample = _sample(text)
    if sum(map(str.isalpha, sample)) < FEWEST_LETTERS:
        return None
    words = re.findall(r"[a-z']+", sample.lower())
    if len(words) >= 20 and sum(word in _ENGLISH for word in words) >= ENGLISH_SHARE * len(words):
        return "en"
    code, certainty = _identifier().classify(sample)
    return str(code) if certainty >= CERTAIN else None


def _sample(text: str) -> str:
    """Its beginning, middle and end; a text that changes its language in between is taken by its larger part."""
    if len(text) <= N_PIECES * PIECE:
        return text
    starts = [number * (len(text) - PIECE) // (N_PIECES - 1) for number in range(N_PIECES)]
    return "\n".join(text[start : start + PIECE] for start in starts)


@cache
def _identifier() -> Any:
    # Imported when first needed: it unpacks its model, a tenth of a second that most commands need not pay.
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
