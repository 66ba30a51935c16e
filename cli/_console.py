"""A console on which the text of a model is only ever text."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.segment import Segment

from bnfold.display.visible import visible


class Console(rich.console.Console):
    """Shows what names hold, and does not obey it."""

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, and then replace the control characters that did not come from it."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
