"""The one place where somebody waits: for something that must come true, with a deadline."""

import time

# Between two looks, in seconds.
TICK = 0.05


def until(what, patience=45, otherwise=None):
    """What `what` answers, as soon as it is true. After `patience` seconds (None: never) TimeoutError, or the exception that
    `otherwise` makes."""
    deadline = None if patience is None else time.monotonic() + patience
    while not (answer := what()):
        if deadline is not None and time.monotonic() > deadline:
            raise otherwise() if otherwise else TimeoutError(f"not within {patience} seconds")
        time.sleep(TICK)
    return answer


def within(patience, what):
    """Whether `what` came true in time."""
    try:
        return bool(until(what, patience))
    except TimeoutError:
        return False
