"""`deliver`: what runs kept here while the tracking server was down."""

import os
import sys

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(deliver, args=arguments, prog="python -m trainer deliver")


def deliver() -> int:
    """Send to the tracking server what runs kept on this machine while it did not answer.

    It can be repeated: what has arrived is not made twice. The exit status is 1 where something stays.
    """
    from trainer.store import outbox
    from trainer.store.location import Store, StoreError, embedded_uri, open_store

    try:
        store = open_store(create=False)
    except StoreError as error:
        here = Store(embedded_uri(), None)  # where what a server did not take is kept, whichever it was
        servers = sorted({box.server for box in outbox.outboxes(here.undelivered)})
        if os.environ.get("MLFLOW_TRACKING_URI") or not servers:
            raise
        raise StoreError(
            f"no server is named, and runs wait for {', '.join(servers)}: set MLFLOW_TRACKING_URI={servers[0]}"
        ) from error
    waiting = outbox.outboxes(store.undelivered)
    if not waiting:
        print(f"Nothing waits to be delivered in {store.undelivered}.")
        return 0
    left = 0
    for box in waiting:
        where = box.server
        try:
            registered = outbox.deliver(store, box)
        except StoreError as error:
            left += 1
            print(f"{error} (it was logged to {where})", file=sys.stderr)
            continue
        print(f"Run {box.run_id} is delivered.")
        for made in registered:
            crown = ", the champion" if made.is_champion else ""
            print(f"Registered as {made.model_name}/{made.version}{crown}.")
    return 1 if left else 0
