"""`python -m detr.runtime.tied WORDS` is `detr WORDS` that ends when the process that holds its stdin has ended."""

from __future__ import annotations

import os
import runpy
import signal
import threading
import time

GOODBYE = 120.0  # seconds to finish a step and save


def end_with_stdin() -> None:
    """When stdin is closed, by hand or because who held it was killed, this process gets a SIGTERM, and then no more
    than `GOODBYE` seconds."""
    threading.Thread(target=_wait, daemon=True, name="detr-tied").start()


def _wait() -> None:
    while os.read(0, 1024):  # of the system: Python's own would be found reading when the program ends by itself
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GOODBYE)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    end_with_stdin()
    runpy.run_module("detr", run_name="__main__", alter_sys=True)
