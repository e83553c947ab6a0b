"""The font that pictures are lettered with (light to import)."""

from functools import cache
from pathlib import Path


@cache
def font_file() -> str:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font knows no letter beyond ASCII."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
