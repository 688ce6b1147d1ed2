"""Where a key may be sent, and what is said of an address that was meant otherwise."""

from __future__ import annotations

import pytest

from sdf.errors import RecipeError
from sdf.providers.addresses import base_url


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("localhost:8000", "'localhost:8000' is not an address; write http://localhost:8000/v1"),
        ("localhost", "'localhost' is not an address; write http://localhost/v1"),
        ("127.0.0.1:8000/v1", "'127.0.0.1:8000/v1' is not an address; write http://127.0.0.1:8000/v1"),
        ("models.example.com/api/v2/", "write https://models.example.com/api/v2"),
        ("http://localhost:99999", "'http://localhost:99999' is not an address; write http://localhost:8000/v1"),
        ("https://host:port", "'https://host:port' is not an address; write https://HOST/v1"),
        ("https://[::1", "'https://[::1' is not an address; write https://HOST/v1"),
        ("bob:hunter2@models.example.com:80", "'models.example.com:80' is not an address"),
        ("ftp://bob:hun/ter2@models.example.com", "'ftp://models.example.com' is not an address"),
        ("ftp://bob:h?unter2@models.example.com", "'ftp://…' is not an address"),
        ("localhost:8000/v1?key=hunter2", "'localhost:8000/v1' is not an address"),
        ("a\n\x1b[31m" + "b" * 5_000, "'a[31mbbbb"),
    ],
)
def test_what_was_typed_is_said_without_what_may_be_a_key(typed: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        base_url("openai", typed, allow_insecure=False, root="/v1")
    said = str(caught.value)
    assert said.startswith("provider openai: base_url ") and words in said and len(said) < 250
    assert "hun" not in said and "unter2" not in said and said.isprintable()


# Resolvers and clients read all of these as 169.254.169.254.
@pytest.mark.parametrize("host", ["①⑥⑨.254.169.254", "169。254。169。254", "１６９.254.169.254", "169.254\n.169.254"])
def test_an_address_in_other_signs_is_none(host: str) -> None:
    with pytest.raises(RecipeError, match="is not an address"):
        base_url("openai", f"https://{host}/v1", allow_insecure=True)
