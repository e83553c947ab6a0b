"""Damages good photos at random, and looks for one that is neither read nor refused: it is no test, and needs minutes.

    python -m tests.fuzz_photos --minutes 5 --seed 0

Exit code 1 where a file gave anything but faces or an ImageError, took too long or too much memory, or ended the
process; its bytes are saved.
"""

import hashlib
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Annotated

import tyro

MEMORY_BYTES = 3 * 1024**3
LONGEST_SECONDS, LONGEST_MESSAGE = 10.0, 300
PART = re.compile(
    rb"\xff[\xc0-\xfe]|VP8[ LX]|ANM[FI]|ALPH|[\x21\x2c](?=.)"
    rb"|(?s:.{4})(?=IHDR|IDAT|PLTE|tRNS|eXIf|iCCP|acTL|fcTL|fdAT|IEND|ftyp|meta|ispe|iloc|mdat)"
)
"""Where a part of a file may begin: segments of a JPEG, chunks of a PNG or WebP, boxes of an AVIF, blocks of a GIF."""
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(random: Random, files: list[bytes]) -> bytes:
    data = bytearray(random.choice(files))
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        parts = [0, *(found.start() for found in PART.finditer(data)), len(data)]
        start, end = sorted(random.choices(parts if random.random() < 0.7 else range(len(data) + 1), k=2))
        place, kind = random.randrange(len(data) + 1), random.randrange(7)
        if kind == 0 and data:
            for _ in range(random.randint(1, 8)):
                data[min(random.randrange(len(data)), random.randrange(len(data)))] ^= 1 << random.randrange(
                    8
                )
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[place:place] = data[start:end] * random.choice((1, 1, 2, 50))
        elif kind == 3:  # lengths, counts and sizes
            width = random.choice((1, 2, 4))
            value = random.choice(EXTREMES) % 256**width
            data[place : place + width] = value.to_bytes(width, random.choice(("big", "little")))
        elif kind == 4:
            other = random.choice(files)
            data[start:end] = other[random.randrange(len(other)) :]
        elif kind == 5:
            del data[place:]
        else:
            data[place : place + 4] = random.randbytes(4)
        del data[2_000_000:]
    return with_sums(bytes(data)) if random.random() < 0.8 else bytes(data)


def with_sums(data: bytes) -> bytes:
    """A PNG's check sums are made right, so that more than they is tested."""
    place, found = 8, bytearray(data)
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        found[end : end + 4] = (
            zlib.crc32(data[place + 4 : end]).to_bytes(4, "big") if end + 4 <= len(data) else b""
        )
        place = end + 4
    return bytes(found)


def serve(pipe: Connection) -> None:
    """In the child: read photos and find faces. Answers (what, seconds, peak KB)."""
    from trainer.data.images import ImageError
    from trainer.inference.faces import find_faces, read_photo

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff says there what it stumbles over
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    while True:
        data, started = pipe.recv(), time.perf_counter()
        try:
            find_faces(read_photo(data))
            what = "read"
        except ImageError as error:
            message = str(error)
            fine = message.isprintable() and len(message) <= LONGEST_MESSAGE and "MemoryError" not in message
            what = "refused" if fine else f"the message {message[:1000]!r}"
        except BaseException:
            what = traceback.format_exc()
        pipe.send((what, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fuzz(
    *, minutes: float = 5.0, seed: Annotated[int, tyro.conf.arg(help="The same files for the same.")] = 0
) -> int:
    """Damage good photos at random, and look for one that is neither read nor refused."""
    from tests.extra.hostile_photos import cases, face_files  # not in the child: torch alone takes its memory

    files = [case.build() for case in cases() if case.message is None] + [next(iter(face_files().values()))]
    files = [data for data in files if len(data) < 300_000]
    random, context, counts = Random(seed), get_context("spawn"), Counter[str]()
    slowest, peak, child, end = 0.0, 0, None, time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        if child is None:
            pipe, theirs = context.Pipe()
            child = context.Process(target=serve, args=(theirs,), daemon=True)
            child.start()
            theirs.close()
            pipe.send(files[0])  # imports take their time
            pipe.recv()
        data = damaged(random, files)
        pipe.send(data)
        try:
            what, seconds, memory = (
                pipe.recv() if pipe.poll(LONGEST_SECONDS) else ("no end", LONGEST_SECONDS, 0)
            )
        except EOFError:
            child.join()
            what, seconds, memory = f"the process ended with {child.exitcode}", 0.0, 0
        counts[what if what in ("read", "refused") else "wrong"] += 1
        slowest, peak = max(slowest, seconds), max(peak, memory)
        if what not in ("read", "refused"):
            digest = hashlib.sha256(data).hexdigest()
            path = Path(tempfile.gettempdir()) / f"photo-{digest[:12]}.bin"
            path.write_bytes(data)
            say(f"seed {seed}, file {counts.total()}, sha256 {digest}, saved as {path}:\n{what}")
        if what == "no end" or what.startswith("the process"):
            child.kill()
            child.join()
            child = None
    if child is not None:
        child.kill()
    say(
        f"{counts.total():,} files: {counts['read']:,} read, {counts['refused']:,} refused, {counts['wrong']} wrong; "
        f"slowest {slowest:.2f} s, peak {peak / 1024:.0f} MB"
    )
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(fuzz, prog="python -m tests.fuzz_photos"))
