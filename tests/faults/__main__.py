"""`python -m tests.faults [--only NAME …]`: makes faults and says what is seen; 1 where a thing is lost."""

import sys
import time
import traceback
from collections.abc import Callable
from typing import Annotated

import tyro

from tests.faults import copies, disk, hosts, kill, load, numbers, resuming, servers

FAULTS: dict[str, Callable[[], list[str]]] = {
    "kill": kill.kill,
    "twice": resuming.twice,
    "changed": resuming.changed,
    "clock": resuming.clock,
    "disk-cache": disk.cache,
    "disk-log": disk.log,
    "read-only": disk.read_only,
    "server-start": servers.at_start,
    "server-minute": servers.for_a_minute,
    "server-gone": servers.for_good,
    "server-slow": servers.slow,
    "database": servers.database,
    "exploding": numbers.nan_loss,
    "memory": numbers.out_of_memory,
    "backup": copies.backup,
    "hosts": hosts.across_hosts,
    "load": load.load,
}


def main(
    *,
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (),
    seconds: float = 600,
) -> int:
    """Make faults and look whether anything is lost; Linux only, some as root.

    Args:
        only: These faults instead of all.
        seconds: How long the load lasts.
    """
    if unknown := set(only) - set(FAULTS):
        print(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    lost = []
    for name in only or FAULTS:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        try:
            for line in load.load(seconds) if name == "load" else FAULTS[name]():
                print(f"   {line}")
            print(f"   nothing was lost ({time.monotonic() - started:.0f} s)", flush=True)
        except PermissionError as error:
            print(f"   left out: {error}", flush=True)
        except Exception:
            lost.append(name)
            traceback.print_exc()
    if lost:
        print(f"LOST SOMETHING: {', '.join(lost)}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main, prog="python -m tests.faults"))
