"""``grove weights …`` alone, for proofs that start it as a process: needs no other room."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from desktop_app.errors import KnownError
from desktop_app.weights import command


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", type=Path, required=True)
    command.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args()
    try:
        return command.run(args, args.profile)
    except KnownError as error:
        print(error.sentence, file=sys.stderr)
        if getattr(args, "json", False):
            print(json.dumps({"error": error.code, "sentence": error.sentence}))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
