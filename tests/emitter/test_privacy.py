"""No byte of a secret that was put in comes out: masked names, fields left out, blurred addresses and ids."""

import functools
import gc
import hashlib
import hmac
import json
import re
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import MASK, MASKED_NAMES, MIN_NAME_END, Emitter, Privacy

from tests.emitter.lines import Lines

KEY = b"a key of 16 bytes, and some more"


def said(fields: dict[Any, Any], **rules: Any) -> dict[str, Any]:
    lines = Lines()
    Emitter(stream=lines, privacy=Privacy(**rules)).emit(fields)
    return lines.fields


def line(fields: dict[Any, Any], **rules: Any) -> str:
    """Return what is on the line, but for what the emitter itself draws at random."""
    lines = Lines()
    Emitter(stream=lines, privacy=Privacy(**rules), max_line_bytes=262_118).emit(fields, id="id")
    (record,) = lines.records
    assert record.src
    return lines.getvalue().replace(record.src, "")


# --- masking ----------------------------------------------------------------------------------------------

# A secret as it is in no name, sign or mask.
secrets = st.text("0123456789ABCDEFXYZ", min_size=12, max_size=40)
spellings = st.sampled_from(
    [
        *MASKED_NAMES,
        *(name.upper() for name in MASKED_NAMES),
        *(name.replace("-", "_") for name in MASKED_NAMES),
        *(
            "X-Api-Key",
            "x_api_key",
            "apiKey",
            "DB_PASSWORD",
            "sessionToken",
            "Set-Cookie",
            "proxy-authorization",
        ),
        *("X-Amz-Signature", "X-Amz-Security-Token", "client_secret", "id_token", "aws-secret-access-key"),
        *("authtoken", "ACCESSTOKEN", "IDToken", "csrf_token", "apikey", "secretKey"),
    ]
)


@st.composite
def places(draw: st.DrawFn, secret: str) -> Any:
    """Put a secret under a masked name, in one of the shapes that are always looked into."""
    name = draw(spellings)
    kind = make_dataclass("Kind", [(name.replace("-", "_"), str)])
    shapes = [
        {name: secret},
        {name: [secret, {"deep": secret}]},
        {name: {"inner": secret}},
        {name: secret.encode()},
        OrderedDict({name: secret}),
        MappingProxyType({name: secret}),
        kind(secret),
        SimpleNamespace(model_dump=lambda: {name: secret}),
        [[name, secret]],
        [(name, secret), ("accept", "*/*")],
        [(name.encode(), secret.encode())],
        f"/pets?{name}={secret}",
        f"/pets?page=1&{name}={secret}&sort=name",
        f"{name}={secret}",
        f"user=ann&{name}={secret}",
        f"https://example.org/#page=1&{name}={secret}",
        f"/pets?user[{name}]={secret}&{name}[]={secret}",
        f"/pets?user%5B{name}%5D={secret}",
        f"/login?next=https%3A%2F%2Fexample.org%2F%3F{name}%3D{secret}",
        f"/login?next=https%253A%252F%252Fexample.org%252F%253F{name}%253D{secret}",
        {f"/pets?{name}={secret}": 3},
        {f"user[{name}]": secret},
        {f"user.{name} ": secret},
        {f"my{name}": secret} if len(name) >= MIN_NAME_END else {name: secret},
        RuntimeError(f"https://example.org/?{name}={secret}"),
    ]
    return draw(st.sampled_from(shapes))


@st.composite
def texts_with_a(draw: st.DrawFn, secret: str) -> Any:
    """Put a secret behind a masked name somewhere in a text, where it is looked for if that was asked for."""
    name = draw(spellings)
    shapes = [
        f"{name}: Bearer {secret}",
        f'{{"{name}": "{secret}", "page": 1}}',
        f'{{"page": [{{"{name}":["{secret}"]}}]}}',
        f"{{'{name}': '{secret}'}} is no JSON",
        f'{{"{name}": "{secret}" and then it broke',
        json.dumps(json.dumps({name: secret})),
        functools.reduce(lambda text, _: json.dumps(text), range(6), json.dumps({name: secret})),
        f'body={{\\"{name}\\": \\"a&{secret}\\"}}',
        f"{{'{name}': 'it\\'s \"{secret}'}}",
        f'{{"{name}": "{secret}", "{name}": null}}',
        RuntimeError(f"cannot sign in with {name}={secret}"),
        f"signed in with {name} = {secret}",
    ]
    return draw(st.sampled_from(shapes))


@given(secret=secrets, data=st.data(), wrap=st.sampled_from(["field", "nested", "list", "beside a NaN"]))
def test_no_byte_of_a_secret_comes_out_of_a_text_that_is_searched(
    secret: str, data: st.DataObject, wrap: str
) -> None:
    place = data.draw(texts_with_a(secret) | places(secret))
    wraps: dict[str, dict[Any, Any]] = {
        "field": {"body": place},
        "nested": {"request": {"body": place}},
        "list": {"items": [1, [place]]},
        "beside a NaN": {"number": float("nan"), "body": place},
    }

    assert secret not in line(wraps[wrap], text=True)


@given(
    secret=secrets, data=st.data(), wrap=st.sampled_from(["field", "nested", "list", "beside a NaN", "deep"])
)
def test_no_byte_of_a_secret_comes_out(secret: str, data: st.DataObject, wrap: str) -> None:
    place = data.draw(places(secret))
    wraps: dict[str, dict[Any, Any]] = {
        "field": {"headers": place},
        "nested": {"request": {"headers": place}},
        "list": {"items": [1, [place]]},
        "beside a NaN": {"number": float("nan"), "headers": place},
        "deep": {"request": {"a": {"b": {"c": [place]}}}, 1: 2},
    }

    assert secret not in line(wraps[wrap])


@given(secret=secrets, name=spellings)
def test_no_byte_of_a_secret_field_comes_out(secret: str, name: str) -> None:
    assert secret not in line({name: secret, "route": "/pets"})
    assert secret not in line({"route": "/pets", name: {"nested": secret}})


@given(secret=secrets, name=spellings)
def test_what_an_emitter_has_seen_before_does_not_make_it_careless(secret: str, name: str) -> None:
    lines = Lines()
    emitter = Emitter(stream=lines)
    for fields in ({"headers": {"accept": "*/*"}, "path": "/"}, {"headers": "none", "path": "/?a=b"}):
        emitter.emit(fields)
    emitter.emit({"headers": {"accept": "*/*", name: secret}, "path": "/"})
    emitter.emit({"headers": {"accept": "*/*"}, "path": f"/?a=b&{name}={secret}"})
    emitter.emit({"headers": {"accept": {name: secret}}, "path": "/"})

    assert secret not in lines.getvalue()
    assert lines.getvalue().count(MASK) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens_used": 7, "token_count": 3, "author": "ann", "cookies_accepted": True, "keyboard": "qwerty"},
        {
            "path": "/pets?page=3&sort=name",
            "note": "a: b",
            "key": "k",
            "id": "x",
            "headers": {"accept": "a=b"},
        },
        {"text": "the secret garden", "title": "Passwords, a history", "quote": 'say "token" twice'},
        {"session_id": "s1", "sessionId": "s2", "next_token": "n", "NextToken": "n", "nextPageToken": "n"},
        {"page_token": "p", "continuation_token": "c", "path": "/pets?page_token=p&session_id=s1"},
        {"cookies": 3, "secrets": 0, "path": "/pets?page=1", "credentials": None, "passwords": 2.5},
        {"note": "token: abc", "body": '{"password": "x"}', "text": "cannot sign in with password=x"},
        {"query": {"page": "1"}, "pairs": [["a", "b"], ["c", 1]], "body": '{"page": 1}'},
        {"path": "/a%20b", "next": "https%3A%2F%2Fexample.org%3Fpage%3D1", "counts": {"/pets?page=1": 2}},
        {"backpwd_off": "x", "newjwtx": "y", "total_tokens": 3, "[]": "z"},
    ],
)
def test_what_only_resembles_a_secrets_name_is_left_alone(fields: dict[str, Any]) -> None:
    assert said(fields) == fields


def test_what_stands_beside_a_secret_stays() -> None:
    fields: dict[Any, Any] = {
        "path": "/pets?page=1&api_key=K&sort=name#top",
        "headers": {"Authorization": "Bearer K", "Accept": "*/*"},
        "form": "user=ann&password=K&page=1",
        "token": None,
        "pin_token": 1234,
        "cookies": ["a=b"],
        "empty": "/pets?token=&page=1",
    }

    assert said(fields) == {
        "path": f"/pets?page=1&api_key={MASK}&sort=name#top",
        "headers": {"Authorization": MASK, "Accept": "*/*"},
        "form": f"user=ann&password={MASK}&page=1",
        "token": None,
        "pin_token": MASK,
        "cookies": MASK,
        "empty": "/pets?token=&page=1",
    }


def test_what_stands_beside_a_secret_in_a_searched_text_stays() -> None:
    body = '{"user":"ann","password":"K","page":1}'

    assert said({"body": body}, text=True) == {"body": body.replace('"K"', MASK)}
    assert said({"q": "a=b&token=K&c=d"}, text=True) == {"q": f"a=b&token={MASK}&c=d"}


def test_a_name_that_is_masked_on_purpose_is_masked() -> None:
    """Although the default leaves tokens of pages and sessions alone."""
    fields = {"next_token": "n", "session_id": "s", "page_token": "p"}

    assert said(fields, mask=["next_token", "session-id"]) == {
        "next_token": MASK,
        "session_id": MASK,
        "page_token": "p",
    }


def test_the_masked_names_are_a_matter_of_choice() -> None:
    assert said({"password": "x", "iban": "y"}, mask=["iban"]) == {"password": "x", "iban": MASK}
    assert said({"password": "x"}, mask=()) == {"password": "x"}
    assert said({"q": "id=7&pin=8"}, mask=["pin", "x"]) == {"q": f"id=7&pin={MASK}"}
    assert said({"zip": "x", "client_ip": "y"}, mask=["ip"]) == {"zip": "x", "client_ip": MASK}
    long = "a-name-that-is-longer-than-all-of-those-above"
    assert said({"q": f"?{long}=7"}, mask=[long]) == {"q": f"?{long}={MASK}"}


texts = st.sampled_from(
    ["x", "", "a:b", "?token=K", "pwd=K", '{"token":"K"}', "a=b&c", "%3D", "?x=%3Ftoken%3DK"]
)
small = st.recursive(
    texts | st.integers(0, 3) | st.none(),
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b", "a=b", "token", "pin", "cookies"]), inner, max_size=3)
        | st.lists(inner, max_size=2)
    ),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "c", "token", "a="]), small, max_size=4), max_size=6),
    st.booleans(),
)
def test_what_is_masked_does_not_depend_on_what_was_written_before(
    records: list[dict[str, Any]], text: bool
) -> None:
    """An emitter remembers names, to look less closely at the next line."""
    lines = Lines()
    emitter = Emitter(stream=lines, privacy=Privacy(text=text))
    for fields in records:
        emitter.emit(fields)

    assert [record.fields for record in lines.records] == [said(fields, text=text) for fields in records]


def test_names_that_are_ids_do_not_make_it_remember_more_and_more() -> None:
    """A record of counts by customer has new names each time."""
    privacy = Privacy()
    emitter = Emitter(stream=Lines(), privacy=privacy)
    emitter.emit({"by_customer": {f"c{number}": 1 for number in range(500)}})
    gc.collect()
    tracemalloc.start()
    try:
        for batch in range(1, 100):
            emitter.emit(
                {"by_customer": {f"c{number}": 1 for number in range(batch * 500, batch * 500 + 500)}}
            )
            if batch == 5:
                first = tracemalloc.take_snapshot()
        last = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()

    here = [tracemalloc.Filter(True, "*/tagline/privacy.py")]
    grown = sum(
        each.size_diff for each in last.filter_traces(here).compare_to(first.filter_traces(here), "filename")
    )
    assert grown < 200_000  # 47,000 names of 50 bytes and more


# --- the page ---------------------------------------------------------------------------------------------


@dataclass
class Login:
    password: str


# What the page's table says of each place, by one value for each of its examples.
PLACES: dict[str, list[Any]] = {
    "a field": [{"db_password": "x-secret"}],
    "an object at any depth": [{"headers": {"cookie": "x-secret"}}],
    "a dataclass, a pydantic model, a mapping": [{"login": Login("x-secret")}],
    "a pair of a name and a value": [{"headers": [["cookie", "x-secret"], [b"x-api-key", b"x-secret"]]}],
    "a parameter of a query string, of a form or of a fragment": [
        {"path": "/pets?page=1&token=x-secret"},
        {"path": "user[password]=x-secret"},
        {"path": "/pets#token=x-secret"},
    ],
    "a query string in another's parameter": [
        {"path": "/?next=https%3A%2F%2Fexample.org%3Ftoken%3Dx-secret"},
    ],
    "a query string in a key": [{"counts": {"/pets?token=x-secret": 3}}],
    "a number under a plural: a count": [{"cookies": 3}],
    "the token of a page": [
        {name: "x-secret"} for name in ("next_token", "page_token", "continuation_token", "pagination_token")
    ],
    "the id of a session": [{"session_id": "x-secret"}],
    "a name that only begins with a masked one": [
        {name: "x-secret"} for name in ("tokens_used", "total_tokens", "author")
    ],
    "text: a header, JSON, a sentence": [
        {"note": "authorization: Bearer x-secret"},
        {"note": '{"password": "x-secret"}'},
    ],
}


def masks(fields: dict[str, Any], *, text: bool) -> bool:
    """Return whether nothing of the value is on the line."""
    written = json.dumps(said(fields, text=text))
    return "x-secret" not in written and MASK in written


def test_the_pages_table_says_what_is_masked() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "privacy.md"
    table = re.findall(r"^\| ([^|`]+) \| .* \| (yes|no|with `text=True`) \|$", page.read_text(), re.MULTILINE)

    assert [place for place, _ in table] == list(PLACES)
    for place, masked in table:
        for fields in PLACES[place]:
            assert masks(fields, text=False) == (masked == "yes"), (place, fields)
            assert masks(fields, text=True) == (masked != "no"), (place, fields)


# --- allowed and denied fields ----------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(["route", "status", "body", "client", "user"]), secrets))
def test_only_allowed_fields_are_written(fields: dict[str, str]) -> None:
    assert set(said(fields, allow=["route", "status"])) == set(fields) & {"route", "status"}


def test_an_allow_list_covers_what_the_emitter_itself_adds() -> None:
    lines = Lines()
    emitter = Emitter(stream=lines, privacy=Privacy(allow=["step", "duration_ms"]))
    with pytest.raises(ValueError, match="hush"), emitter.record({"step": 1}):
        raise ValueError("hush")

    assert set(lines.fields) == {"step", "duration_ms"}


@given(secret=secrets, name=st.sampled_from(["body", "Body", "requestBody", "request-body"]))
def test_denied_names_are_left_out_at_any_depth(secret: str, name: str) -> None:
    fields = {name: secret, "request": {name: {"x": secret}, "route": "/"}, "pairs": [[name, secret]]}

    written = said(fields, deny=["body", "request_body"])

    assert secret not in json.dumps(written)
    assert written["request"] == {"route": "/"}


def test_a_denied_field_is_no_metric() -> None:
    lines = Lines()
    privacy = Privacy(deny=["items"])
    Emitter(stream=lines, privacy=privacy, metrics={"items": "Count"}, namespace="Shop").emit({"items": 3})

    assert "items" not in lines.getvalue()


# --- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.195", "203.0.113.0"),
        ("2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:85a3::"),
        ("::ffff:203.0.113.195", "::"),
        ("203.0.113.195, 70.41.3.18", "203.0.113.0, 70.41.3.0"),
        (["203.0.113.195"], ["203.0.113.0"]),
        ("203.0.113.195:4711", MASK),
        ("unknown", MASK),
        ("", MASK),
        (7, MASK),
        (None, None),
    ],
)
def test_addresses_lose_their_end(address: Any, network: Any) -> None:
    assert said({"sourceIp": address, "x": 1}, truncate=["source_ip"]) == {"sourceIp": network, "x": 1}


@given(st.ip_addresses())
def test_no_two_neighbours_are_told_apart(address: Any) -> None:
    other = type(address)(int(address) ^ 1)

    assert said({"ip": str(address)}, truncate=["ip"]) == said({"ip": str(other)}, truncate=["ip"])


# --- pseudonyms -------------------------------------------------------------------------------------------


@given(st.text(min_size=1) | st.integers() | st.booleans())
def test_a_pseudonym_is_the_keyed_digest_of_the_value(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    digest = hmac.new(KEY, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    assert said({"client": value}, pseudonyms=["client"], key=KEY) == {"client": digest}
    assert said({"client": value}, pseudonyms=["client"], key=KEY[::-1]) != {"client": digest}


@given(secret=secrets)
def test_no_byte_of_a_pseudonyms_value_comes_out(secret: str) -> None:
    fields = {"client": secret, "caller": {"Client": [secret]}}

    assert secret not in line(fields, pseudonyms=["client"], key=KEY)


def test_nothing_has_no_pseudonym() -> None:
    assert said({"client": None, "x": 1}, pseudonyms=["client"], key=KEY) == {"client": None, "x": 1}


@pytest.mark.parametrize("key", [b"", b"fifteen bytes.."])
def test_pseudonyms_without_a_key_that_is_long_enough_are_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match=f"at least 16 bytes, not {len(key)}"):
        Privacy(pseudonyms=["client"], key=key)


def test_a_key_that_is_text_is_refused() -> None:
    with pytest.raises(ValueError, match="the pseudonyms' key is bytes, not str"):
        Privacy(pseudonyms=["client"], key="a key of 16 characters")  # type: ignore[arg-type]  # the case


@pytest.mark.parametrize("argument", ["mask", "allow", "deny", "truncate", "pseudonyms"])
def test_one_text_instead_of_a_list_of_names_is_refused(argument: str) -> None:
    rules: dict[str, Any] = {argument: "iban"}
    with pytest.raises(ValueError, match="'iban' is a text, not a list of names"):
        Privacy(**rules)


def test_a_record_that_is_shortened_is_clean_as_well() -> None:
    @dataclass
    class Login:
        user: str
        password: str

    lines = Lines()
    Emitter(stream=lines, max_line_bytes=1_000).emit({"login": Login("ann", "hush"), "body": "x" * 5_000})

    assert "hush" not in lines.getvalue()
    assert lines.records[0].trunc == ("body",)
