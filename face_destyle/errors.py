"""The errors a user can do something about; each message is one line that says what."""


class UserError(Exception):
    """Something the user can put right. The command line prints it and exits with code 2."""


class PictureError(UserError, ValueError):
    """A file or array that cannot be read as a picture, or a picture that cannot be written."""


class WeightsError(UserError, ValueError):
    """Weights that cannot be found, or that do not fit the network they are meant for."""
