"""Variables that no sandbox gets from a project's .env, unless the user agrees to that file.

Each says whose key is used, where it goes, or what a program runs. An agent and a provider name
theirs themselves; all agents' count, whichever is chosen.
"""

from __future__ import annotations

from functools import cache

from scripts import agents, env_forward, providers

PROGRAMS = (
    # Where libraries, programs, their configuration and their names for hosts come from.
    *("PATH", "HOME", "XDG_*", "TMPDIR", "LD_*", "DYLD_*", "GCONV_PATH", "LOCPATH", "NLSPATH"),
    *("GLIBC_TUNABLES", "MALLOC_*", "TERMCAP", "TERMINFO*", "HOSTALIASES", "LOCALDOMAIN"),
    "RES_OPTIONS",
    # What a shell runs at its start, and what programs start.
    *("ENV", "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELL", "SHELLOPTS", "ZDOTDIR", "IFS", "PS4"),
    *("PROMPT_COMMAND", "CDPATH", "*EDITOR", "VISUAL", "*PAGER", "LESS*", "BROWSER", "*ASKPASS"),
    "SUDO_*",
    # What interpreters and package managers load, and from where.
    *("NODE_*", "NPM_*", "YARN_*", "PNPM_*", "BUN_*", "DENO_*", "COREPACK_*", "PYTHON*", "PIP_*"),
    *("UV_*", "POETRY_*", "CONDA_*", "RUBY*", "GEM_*", "BUNDLE_*", "PERL*", "PHP*", "COMPOSER_*"),
    *("JAVA_*", "_JAVA_*", "JDK_*", "MAVEN_*", "GRADLE_*", "CARGO_*", "RUST*", "GOFLAGS"),
    *("GOPROXY", "GOPRIVATE", "GONOSUM*", "GONOPROXY", "GOINSECURE", "GOSUMDB", "GOTOOLCHAIN"),
    *("GOROOT", "GOPATH", "GOENV", "MAKEFLAGS", "CC", "CXX"),
)
"""What makes the programs of a sandbox run something else."""
DESTINATIONS = (
    *("*PROXY*", "*CA_BUNDLE*", "*CA_CERT*", "SSL_*", "SSLKEYLOGFILE", "CURL_*", "WGETRC"),
    *("*_BASE_URL*", "*_API_BASE*", "*_API_URL*", "*ENDPOINT*", "*_ADDR", "OTEL_*"),
    *("GIT_*", "SSH_*", "GPG_*", "GNUPGHOME", "GH_*", "GITHUB_*", "GITLAB_*"),
    *("AWS_*", "GOOGLE_*", "GCLOUD_*", "CLOUDSDK_*", "AZURE_*", "KUBE*", "VAULT_*"),
)
"""Where keys, requests and what is asked go, and whose keys they are."""


def is_withheld(name: str) -> bool:
    """Tell whether a variable needs consent; some programs read names in lower case, too."""
    harmless, withheld = _patterns()
    upper = name.upper()
    return not env_forward.matches(upper, harmless) and env_forward.matches(upper, withheld)


@cache
def _patterns() -> tuple[tuple[str, ...], tuple[str, ...]]:
    all_agents = tuple(agents.get(name) for name in agents.NAMES)
    harmless = tuple(pattern for one in all_agents for pattern in one.HARMLESS)
    theirs = tuple(
        pattern
        for one in all_agents
        for pattern in (
            one.BASE_URL,
            *one.CREDENTIALS,
            *one.KEYS,
            *one.STEERING,
            *one.CONFIGURATION,
        )
    )
    reached = (name for one in providers.NAMES for name in providers.get(one).VARIABLES)
    return harmless, (*filter(None, theirs), *reached, *PROGRAMS, *DESTINATIONS)
