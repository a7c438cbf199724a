"""The command line: `fullrank COMMAND`, built from the signatures in `commands.py`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from fullrank import __version__

SUMMARIES = {
    "train": "pre-train a backbone on unlabelled images and say whether its embedding collapsed",
    "check": "look at a data set before an hour is lost on it",
    "evaluate": "judge a trained backbone on labelled images",
    "embed": "write the representation of every image to a file",
    "export": "write a run's backbone in the form that another library opens",
    "diagnose": "say whether an embedding has collapsed, why, and what to do",
    "reproduce": "run a table or figure of the talk on your data, beside the published numbers",
    "compare": "show runs side by side: what they gave, and in what their settings differ",
    "methods": "show the family tree of the methods, or all about one",
    "tables": "show the tables and figures of the talk, or one with its published numbers",
}
JSON_COMMANDS = ("check", "evaluate", "diagnose", "methods", "tables", "reproduce", "compare")
# How often a thread without work looks for some before it sleeps: fastest on idle cores, and slow where another run
# wants them too, for which docs/training.md has a smaller number.
SPINS = "20000"
BROKEN_PIPE = 128 + 13  # as other commands end; not every system has the signal


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code.

    0 done, 1 done but for runs of a table that failed, 2 input that cannot be used, 128 + n stopped by signal n.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"fullrank {__version__}")
        return 0
    from fullrank.errors import InputError, one_line

    try:
        code = run(arguments[0], arguments[1:])
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"fullrank: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes
        return BROKEN_PIPE
    except KeyboardInterrupt as stop:
        print(f"fullrank: {str(stop) or 'stopped; nothing was saved'}", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)


def overview() -> str:
    """What `fullrank --help` prints."""
    width = max(map(len, SUMMARIES))
    lines = [f"  {name:{width}}  {text}" for name, text in SUMMARIES.items()]
    return "\n".join(
        [
            "usage: fullrank COMMAND [options]",
            "",
            *lines,
            "",
            "`fullrank COMMAND --help` lists a command's options.",
        ]
    )


def run(name: str, arguments: list[str]) -> int:
    """Parse the options of one command, call it, show what it gives."""
    from fullrank import commands
    from fullrank.arguments import parse
    from fullrank.errors import unknown

    if name not in SUMMARIES:
        raise unknown("command", name, SUMMARIES)
    options: dict[str, Any] = parse(name, arguments, with_json=name in JSON_COMMANDS)
    as_json = options.pop("json", False)
    result = getattr(commands, name)(**options)
    from fullrank.terminal import show

    return show(name, result, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
