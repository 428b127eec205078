"""What a service answers when it does not do what it was asked."""


class ServiceError(Exception):
    """An error that AWS models: boto3 raises it as `client.exceptions.<code>`.

    Args:
        code: The error's name in the service's model, e.g. `ValidationException`.
        message: What the caller reads.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def invalid(message: str) -> ServiceError:
    """Name what is wrong with a request.

    Args:
        message: What the caller reads.

    Returns:
        The ValidationException to raise.
    """
    return ServiceError("ValidationException", message)
