"""Which device runs compute on, told by a process of its own: the one that asks must not touch it."""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Print the device's kind and name, as a JSON list."""
    from pewb.device import choose_device, device_name
    from pewb.recipe import DeviceSection

    device = choose_device(DeviceSection())
    print(json.dumps([device.type, device_name(device)]), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
