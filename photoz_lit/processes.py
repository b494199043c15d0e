"""What processes beside this one need."""

import multiprocessing
import os
import sys
import threading


def can_fork() -> bool:
    """Whether a copy of this process can go on: beside threads of PyTorch or of macOS it cannot."""
    return sys.platform == "linux" and "torch" not in sys.modules


def end_with_parent() -> None:
    """End this process when the one that started it is gone, or it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
