"""What the tests let forked processes do."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(what, *arguments):
    return globals()[what](*arguments)


def tell():
    import_of_torch = "torch" in sys.modules and "evaluate" in sys.modules
    import torch

    threads = len(list(Path("/proc/self/task").iterdir()))
    told = {"imported": import_of_torch, "threads": threads, "is_leader": os.getsid(0) == os.getpid()}
    told |= {"cuda": torch.cuda.is_initialized(), "bad_fork": torch.cuda._is_in_bad_fork()}
    told |= {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "product": float(torch.ones(300, 300).matmul(torch.ones(300, 300)).sum()),
    }
    print(json.dumps(told), flush=True)
    print("to the log", file=sys.stderr, flush=True)
    return 0


def end(status):
    return int(status)


def die():
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep():
    print("sleeps", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    return 7


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
