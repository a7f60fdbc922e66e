"""What the application's errors have in common."""


class UserError(Exception):
    """Something that a user can mend; the message names it, says what it is and what it should be.

    Command lines print the message without a traceback and exit with status 2.
    """
