"""Images: built, looked for, asked and removed by the engine."""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import CannotCreateError, NoImageError
from scripts.machine import console, process
from scripts.naming import said
from scripts.providers.docker.engine import connected, docker_command, environment, program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.contracts import image
    from scripts.contracts.action import Call
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")


def image_name(settings: Settings, recipe: image.Recipe, version: str) -> str:  # noqa: ARG001
    """Name `nddt:<agent>-<version>-<hash>`."""
    return f"nddt:{recipe.tag(version)}"


def prepare(settings: Settings, *, yes: bool) -> None:
    """Make sure that the engine and the programs that reach it are there."""
    from scripts.machine import engine  # noqa: PLC0415

    environ = environment(settings)
    engine.ensure_installed(("ssh", "ssh-keygen"), yes=yes, environ=environ)
    engine.ensure_running(yes=yes, environ=environ)


def find_image(settings: Settings, name: str) -> bool:
    """Tell whether the engine has an image."""
    return docker_command(settings, "image", "inspect", "--format", "{{.Id}}", name).ok


def build(settings: Settings, recipe: image.Recipe, version: str, *, yes: bool) -> None:
    """Build with whichever builder the docker command has; only the changed layers."""
    from scripts.machine import engine  # noqa: PLC0415

    labels = naming.image_labels(settings.owner)
    environ = environment(settings)
    engine.ensure_base(recipe.base, yes=yes, environ=environ, labels=labels)
    words = ["build", "--tag", image_name(settings, recipe, version), "--file", "-", "--force-rm"]
    words += [word for item in labels.items() for word in ("--label", "=".join(item))]
    # A value stays out of the argument list: a proxy's may hold a password.
    words += [word for name in recipe.proxies for word in ("--build-arg", name)]
    if any(host in str(recipe.proxies) for host in ("//127.", "//localhost", "//[::1]")):
        words += ["--network", "host"]
    title = f"building {recipe.agent} {version}" if version else "building the sandbox image"
    log.info("%s; this happens once", title)
    tail: deque[str] = deque(maxlen=30)
    show = console.progress(title)

    def on_line(line: str) -> None:
        tail.append(line)
        show(line)

    with tempfile.TemporaryDirectory(prefix="nddt-") as nothing:
        code = process.stream(
            (program(), *words, nothing),
            on_line,
            env={"BUILDKIT_PROGRESS": "plain", **environ, **recipe.proxies},
            stdin=recipe.text(version).encode(),
        )
    show("")
    if code != 0:
        raise _build_error(tail, recipe, version)


def _build_error(tail: Sequence[str], recipe: image.Recipe, version: str) -> CannotCreateError:
    text = "\n".join(tail)
    if "no space left on device" in text or "enough free space" in text:
        next_step = f"make room: docker system df, {said('docker.cleanup --images')}"
    elif "ETARGET" in text or "No matching version" in text or "E404" in text:
        next_step = f"check {recipe.version_settings} ({version})"
    else:
        next_step = "the lines above say why; --verbose shows the command"
    # Without a terminal, the log has just been printed as a whole.
    detail = text if console.is_terminal(2) else ""
    return CannotCreateError("the image could not be built", next_step, detail=detail)


def look_up(
    settings: Settings, recipe: image.Recipe, package: str, build_tools: Callable[[], None]
) -> str:
    """Ask npm inside the tools image, which knows the mirror and the authorities."""
    build_tools()
    from scripts.settings.host import CA_BUNDLE  # noqa: PLC0415

    variables = {"NODE_EXTRA_CA_CERTS": CA_BUNDLE, **recipe.proxies}
    options = [word for name in variables for word in ("--env", name)]
    tools = image_name(settings, recipe, "")
    done = process.capture(
        (program(), "run", "--rm", *options, tools, "npm", "view", package, "version"),
        env={**environment(settings), **variables},
        timeout_s=60,
    )
    if not done.ok or not done.stdout.strip():
        raise CannotCreateError(
            f"npm does not know {package}: {done.last_line}",
            f"check NDDT_{recipe.agent.upper()}_VERSION and the network",
        )
    return done.stdout.split()[-1].strip("'")


def ask(settings: Settings, image: str, words: Sequence[str]) -> str:
    """Run it in a container of its own, without a network."""
    fixed = ("run", "--rm", "--pull=never", "--network=none", "--log-driver=none")
    done = docker_command(settings, *fixed, "--entrypoint", words[0], image, *words[1:])
    if not done.ok:
        check_image(done)
        raise CannotCreateError(f"{image} did not answer: {done.last_line}", "see --verbose")
    return done.stdout


def check_image(done: process.Result) -> None:
    """Look at why the engine did not make a container.

    Raises:
        NoImageError: For want of its image.
    """
    if "Unable to find image" in done.stderr or "No such image" in done.stderr:
        raise NoImageError(done.last_line)


def bootstrap_base(call: Call) -> str:
    """Make the base image from the Debian mirror."""
    from scripts.machine import engine  # noqa: PLC0415

    image = call.settings.base_image
    prepare(call.settings, yes=call.yes)
    labels, environ = naming.image_labels(call.settings.owner), environment(call.settings)
    engine.bootstrap_base(image, yes=call.yes, environ=environ, labels=labels)
    return image


def prune_images(settings: Settings, owner: str, keep: int) -> tuple[str, ...]:
    """Remove old images that no container uses."""
    from docker.errors import APIError  # noqa: PLC0415

    removed: list[str] = []
    with connected(settings) as client:
        found = client.images.list(filters={"label": f"{naming.LABEL}.owner={owner}"})
        tagged = [one for one in found if any(tag.startswith("nddt:") for tag in one.tags)]
        tagged.sort(key=lambda one: one.attrs["Created"], reverse=True)
        for old in tagged[keep:]:
            try:
                client.images.remove(old.id)  # which the engine refuses if it has other tags, too
            except APIError as error:
                log.info("%s stays: %s", ", ".join(old.tags), error.explanation)
            else:
                removed += old.tags
    return tuple(removed)
