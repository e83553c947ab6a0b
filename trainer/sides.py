"""How large the images of each epoch are (`Config.progressive`), and how much of a training that leaves (light)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sides:
    """Of a training of so many epochs, whose last ones are at `image_size` px."""

    epochs: int
    image_size: int
    progressive: str | None = None

    def of(self, epoch: int) -> int:
        """Side in px of the images that epoch number `epoch` trains on."""
        return next((side for side, last in self._spans() if epoch <= last), self.image_size)

    def passes(self, done: float = 0.0) -> float:
        """Passes over train after `done` epochs; one at a smaller side counts as its share of the pixels.

        >>> Sides(10, 40, "20:0.4").passes(), Sides(10, 40, "20:0.4").passes(3.5)
        (7.0, 6.125)
        """
        left, begun = 0.0, max(0.0, done)
        for side, last in self._spans():
            left += max(0.0, last - begun) * (side / self.image_size) ** 2
            begun = max(begun, last)
        return left

    def _spans(self) -> list[tuple[int, int]]:
        """(side, number of the last epoch at that side), in order."""
        spans, share = [], 0.0
        for side, part in parse_progressive(self.progressive):
            share += part
            spans.append((side, min(self.epochs, math.ceil(self.epochs * (share - 1e-9)))))
        return [*spans, (self.image_size, self.epochs)]


def parse_progressive(text: str | None) -> list[tuple[int, float]]:
    """(side in px, share of the epochs) of each part of `Config.progressive`. Raises ValueError where it is none.

    >>> parse_progressive("32:0.5 40:0.3")
    [(32, 0.5), (40, 0.3)]
    """
    parts = []
    for word in (text or "").split():
        side, colon, share = word.partition(":")
        try:
            part = int(side), float(share)
        except ValueError:
            part = 0, 0.0
        if not colon or not 8 <= part[0] <= 512 or not 0 < part[1] <= 1:
            raise ValueError(f"'{word}' is not a side and a share of the epochs such as 32:0.5")
        parts.append(part)
    if sum(share for _, share in parts) > 1 + 1e-9:  # 0.05 + 0.55 + 0.3 + 0.1 is a little more
        raise ValueError(f"the shares in '{text}' add up to more than 1")
    return parts
