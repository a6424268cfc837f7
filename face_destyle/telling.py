"""What a command says on stdout: it fails on no name."""

import sys


def tell(line: object) -> None:
    """Write a line; what stdout cannot encode of it stands there with backslashes."""
    try:
        sys.stdout.write(f"{line}\n")
    except UnicodeEncodeError as error:
        text = str(line).encode(error.encoding, "backslashreplace").decode(error.encoding)
        sys.stdout.write(f"{text}\n")
