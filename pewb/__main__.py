"""The command: `pewb`, or `python -m pewb`."""

import gc


def main() -> None:
    """Import the command line, and run it."""
    gc.disable()  # nothing of what is imported is garbage: to look for some takes a fifth of the start
    from pewb import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
