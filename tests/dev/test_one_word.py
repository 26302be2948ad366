"""What generic code knows of an agent or a provider is what its module says, and a list's word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import agents, providers

ROOT = Path(__file__).parents[2]
EXCEPT = {
    # -- what is not about an agent or provider that runs, but about this machine
    "scripts/workspace/protected_files.txt": "what any agent of the user's, here, acts on",
    "scripts/workspace/private_places.py": "where any agent of the user's keeps its login, and "
    "other programs theirs",
    "scripts/keyless/model_access.py": "where any agent of the user's looks for variables",
    "scripts/configuration/environment.py": "variables of programs of this machine",
    "scripts/machine/search_path.py": "an example of a program",
    "scripts/plan.py": "Docker inside, by its title in a plan",
    # -- parts that are one agent's or provider's, and stand below it
    "scripts/demo/messages_api.py": "the protocol that the demo speaks; an agent's demo() chooses",
    "scripts/demo/model_endpoint.py": "the same",
    "scripts/transport/wall.py": "a wall for such a platform alone spares its daemon's files",
    # -- tools of development
    "scripts/dev/measurements.py": "the bench compares with docker by hand, and with one SDK",
    "scripts/dev/proxy_speed.py": "the same",
    "scripts/dev/development.py": "the bench needs an image, and there is one double",
    "scripts/words/development.py": "the same, as tasks",
    "tasks.py": "the double's task",
}
"""File → why a word stands in it all the same."""
ENGINE = ("scripts/machine/engine/",)
"""Docker as an engine of this machine, whoever wants one: what starts it and makes images."""
FEATURES = (
    # Docker inside is something that any provider may offer; so are its places and its risk.
    r"docker_(inside|places|forward|risk)|DOCKER_(INSIDE|FORWARD)|_DOCKERS?\b|agree_to_docker",
    r"Docker (inside|in the|of NDDT_|keeps these)|of a Docker|the Docker|(have|a|whose) Docker",
    r"\.docker\b|\bdocker(: str|=)|docker\.sock|docker\.Dockerfile|/docker\b|dockerd|docker --host",
    r"dockerfiles?|\(docker, ssh\)|DOCKER_HOST|there are Docker",
)
"""What is left out before the word is looked for: it means another thing than the provider."""


def generic() -> list[Path]:
    """List the files that belong to no agent and no provider, and are not the lists."""
    found = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("scripts/**/*.txt"), ROOT / "tasks.py"]
    own = (ROOT / "scripts/agents", ROOT / "scripts/providers")
    return sorted(one for one in found if not any(one.is_relative_to(place) for place in own))


def lines_with(pattern: str, text: str) -> list[str]:
    """List the lines that have a word, whatever is around it."""
    for feature in FEATURES:
        text = re.sub(feature, "", text, flags=re.IGNORECASE)
    return [line.strip() for line in text.splitlines() if re.search(pattern, line, re.IGNORECASE)]


WORDS = {
    "claude": "claude|anthropic",
    # bash is a program of every sandbox: as an agent's word it would be quoted alone.
    "bash": r"agents[ .]+(import )?bash|agent\w*\W{1,4}[\"']bash[\"']|NDDT_BASH_",
    **{name: name for name in providers.NAMES},
}


@pytest.mark.parametrize("name", [*agents.NAMES, *providers.NAMES])
def test_a_word_stands_in_its_own_file_and_a_list_alone(name: str) -> None:
    """But for the exceptions above, each of which says why."""
    pattern = WORDS[name]
    found = {
        path: lines
        for one in generic()
        if (path := str(one.relative_to(ROOT))) not in EXCEPT and not path.startswith(ENGINE)
        if (lines := lines_with(pattern, one.read_text(encoding="utf-8")))
    }

    assert found == {}


@pytest.mark.parametrize("path", EXCEPT)
def test_each_exception_is_needed(path: str) -> None:
    """One that has become needless goes."""
    text = (ROOT / path).read_text(encoding="utf-8")

    assert any(lines_with(pattern, text) for pattern in WORDS.values())


def test_a_word_that_is_written_somewhere_is_found() -> None:
    """Also beside what means something else."""
    text = 'if settings.docker_forward and provider == "docker":\n    DOCKER_FORWARD = 1\n'

    assert lines_with("docker", text) == ['if settings. and provider == "docker":']
    assert lines_with(WORDS["bash"], 'agent == "bash"\nrun("bash", "-c")') == ['agent == "bash"']
