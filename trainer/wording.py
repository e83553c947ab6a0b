"""How lengths of time and numbers of things are said; light to import."""


def duration(seconds: float) -> str:
    """For people: `45 s`, `3 min 20 s`, `2 h 5 min`; `?` where it is not known.

    >>> duration(200)
    '3 min 20 s'
    """
    if seconds != seconds:
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def several(count: int, noun: str) -> str:
    """`1 run`, `12 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
