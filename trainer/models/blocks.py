"""The one line of text that describes a CNN (standard library only: it is checked before anything is loaded)."""

import re


def parse_blocks(blocks: str) -> list[tuple[int, int]]:
    """(width, depth) of each block. Raises ValueError where the text cannot be read.

    >>> parse_blocks("32 128x2")
    [(32, 1), (128, 2)]
    """
    words = blocks.split()
    if not words or not all(re.fullmatch(r"[1-9]\d{0,3}(x[1-9])?", word) for word in words):
        raise ValueError(f"blocks '{blocks}' is not a list of widths such as '32 64 128x2'")
    return [(int(width), int(depth or 1)) for width, _, depth in (word.partition("x") for word in words)]


def map_side(num_blocks: int, image_size: int) -> int:
    """Side of the map, in px, after so many halvings. Raises ValueError where nothing is left."""
    if image_size < 2**num_blocks:
        raise ValueError(f"{num_blocks} blocks halve a {image_size} px image to nothing; take fewer")
    return image_size // 2**num_blocks
