"""Text of models, made harmless where it is shown: names may hold anything, and terminals obey some of it."""

from __future__ import annotations

_INSTEAD = "\N{REPLACEMENT CHARACTER}"
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_LINES = (0x2028, 0x2029)
_PICTURES = 0x2400  # Unicode's pictures of the control characters, in their order
_SHOWN = dict.fromkeys((*range(0x80, 0xA0), *_BIDI, *_LINES, *range(0xD800, 0xE000)), _INSTEAD) | {
    0x7F: "\N{SYMBOL FOR DELETE}",
    **{code: chr(_PICTURES + code) for code in range(0x20) if chr(code) not in "\n\t"},
}


def visible(text: str) -> str:
    """Replace, one by one, what a terminal or a browser would act on instead of showing it.

    Control characters (C0, but for newline and tab, and C1), controls of the direction of text, separators of
    lines and halves of surrogate pairs become a character that is only seen.
    """
    return text.translate(_SHOWN)
