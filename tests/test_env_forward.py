"""Which variables reach the agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import env_forward

ENVIRONMENT = {"AWS_KEY": "1", "AWS_": "2", "XAWS_KEY": "3", "aws_key": "4", "EMPTY": "", "A": "5"}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        pytest.param((), set(), id="nothing"),
        pytest.param(("A",), {"A"}, id="name"),
        pytest.param(("AWS_*",), {"AWS_KEY", "AWS_"}, id="prefix"),
        pytest.param(("A*", "EMPTY"), {"AWS_KEY", "AWS_", "A"}, id="empty-is-left-out"),
        pytest.param(("aws_key", "A", "A"), {"aws_key", "A"}, id="case"),
        pytest.param(("NONE",), set(), id="missing"),
    ],
)
def test_select(patterns: tuple[str, ...], names: set[str]) -> None:
    """By name or by prefix."""
    assert set(env_forward.select(patterns, ENVIRONMENT)) == names


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1)))
def test_a_name_selects_itself_alone(environment: dict[str, str]) -> None:
    """With its value unchanged."""
    found = env_forward.select(("A", "_b1"), {**environment, "A": "1", "_b1": "2"})

    assert found == {"A": "1", "_b1": "2"}


@pytest.mark.parametrize("name", ["A-B", "A.B", "A B", "A;id", "A=", "A\n", "Aé", "A$(id)"])
def test_name_that_no_shell_can_export(name: str) -> None:
    """Is left out: the session's script would end at it."""
    assert env_forward.select(("A*",), {name: "1", "A1": "2"}) == {"A1": "2"}


@pytest.mark.parametrize("name", [*env_forward.PROXIES, *map(str.lower, env_forward.PROXIES)])
def test_proxy_in_either_case(name: str) -> None:
    """Is given in both, for programs that read only one."""
    expected = {name.upper(): "http://proxy:3128", name.lower(): "http://proxy:3128"}

    assert env_forward.proxies({name: "http://proxy:3128", "A": "1"}) == expected


def test_proxy_in_both_cases() -> None:
    """The upper one counts."""
    found = env_forward.proxies({"HTTP_PROXY": "http://upper", "http_proxy": "http://lower"})

    assert found == {"HTTP_PROXY": "http://upper", "http_proxy": "http://upper"}


def test_empty_proxy() -> None:
    """Is none."""
    assert env_forward.proxies({"HTTP_PROXY": "", "https_proxy": ""}) == {}


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ("", False),
        ("b.test", False),
        ("a.test", True),
        ("x, .test", True),
        ("x .TEST", True),
        ("*.test", True),
        ("a.test:8080", True),
        ("*.test:8080", True),
        ("a.test:8081", False),
        ("*.test:8081", False),
        ("xa.test", False),
        ("*", True),
        (",", False),
        (".", False),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_hosts_that_need_no_proxy(scheme: str, without: str, expected: bool) -> None:  # noqa: FBT001
    """NO_PROXY names hosts and domains, and a port where it has one."""
    found = {"HTTP_PROXY": "one.test:1", "ALL_PROXY": "http://two.test", "NO_PROXY": without}

    chosen = env_forward.proxy_for(scheme, "A.test", 8080, found)

    usual = {"http": "http://one.test:1", "https": "http://two.test"}[scheme]
    assert chosen == ("" if expected else usual)
