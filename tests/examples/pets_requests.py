"""What is asked of the pets API in tests, and what it answers."""

from typing import Any

# Method, path, body; then the status and the route of the record. `{pet}` is what the first request made.
REQUESTS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/pets", {"name": "Tom", "kind": "cat"}, 201, "/pets"),
    ("GET", "/pets", None, 200, "/pets"),
    ("GET", "/pets/{pet}", None, 200, "/pets/{pet_id}"),
    ("PATCH", "/pets/{pet}", {"name": "Tim"}, 204, "/pets/{pet_id}"),
    ("PATCH", "/pets/{pet}", {}, 204, "/pets/{pet_id}"),
    ("DELETE", "/pets/{pet}", None, 204, "/pets/{pet_id}"),
    ("GET", "/pets/{pet}", None, 404, "/pets/{pet_id}"),
    ("PATCH", "/pets/{pet}", {"name": "Tim"}, 404, "/pets/{pet_id}"),
    ("DELETE", "/pets/{pet}", None, 404, "/pets/{pet_id}"),
    ("POST", "/pets", {"age": 3}, 422, "/pets"),
    ("GET", "/pets?next_token=mine", None, 400, "/pets"),
    ("GET", "/fail", None, 500, "/fail"),
    ("GET", "/", None, 200, "/"),
    ("GET", "/wp-login.php", None, 404, "unmatched"),
]
