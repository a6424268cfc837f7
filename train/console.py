"""What the commands of this checkout share: a mistake of the user's is one line and exit code 2."""

import functools
import sys
from collections.abc import Callable

from face_destyle.errors import UserError

Main = Callable[[list[str] | None], int]


def one_line_errors(main: Main) -> Callable[..., int]:
    """Let an entry point print a `UserError` and return 2, instead of a stack trace."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 2

    return wrapped
