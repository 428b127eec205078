"""The root of this distribution's exceptions: `except TaglineError` catches every one that is ours."""


class TaglineError(Exception):
    """Something that Tagline refuses or cannot do; the message names the problem and what to do next."""
