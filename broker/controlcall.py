"""A call to the daemon on this machine, over its control socket. Blocks; for commands."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.config.names import variable
from broker.config.process import OFF
from broker.config.sections import Listen
from broker.controlsocket import control_path
from broker.errors import ControlError

_ANSWER_SECONDS = 30.0


def find_control_socket(file: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the daemon of these settings has its control socket.

    Only what says so is looked at: what else may be wrong with the settings is for the daemon to say, which has flags
    and an environment of its own.

    Raises:
        ControlError: the settings say that there is none, or nowhere could it be.
    """
    tables = _tables(file) if file is not None else {}
    socket_path, address = "", Listen().addresses[0]
    match tables.get("daemon"):
        case {"control_socket": str(text)}:
            socket_path = text
    match tables.get("listen"):
        case {"addresses": [str(text), *_]}:
            address = text
    socket_path = environ.get(variable("daemon.control_socket"), socket_path)
    address = environ.get(variable("listen.addresses"), "").partition(",")[0].strip() or address
    if socket_path == OFF:
        raise ControlError("daemon.control_socket is off: send the daemon SIGHUP to have it read its settings again")
    return Path(socket_path) if socket_path else control_path(address, environ)


def _tables(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ControlError(f"{file} cannot be read: {error.strerror}; name the daemon's file") from error
    except ValueError:  # the daemon says what is wrong with it, if it can be found without
        return {}


def call(path: Path, verb: str) -> Mapping[str, Any]:
    """Ask the daemon for one thing.

    Raises:
        ControlError: nobody is there, or there is no sense in the answer.
    """
    where = "name its socket with --control-socket, or its settings with --config"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            sock.connect(os.fspath(path))
            sock.sendall(json.dumps({"do": verb}).encode() + b"\n")
            with sock.makefile("rb") as answers:
                line = answers.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(f"no daemon answers at {path}; {where}") from None
    except PermissionError:
        raise ControlError(f"{path} is another user's; call this as that user, or as root") from None
    except TimeoutError:
        raise ControlError(f"the daemon at {path} said nothing for {_ANSWER_SECONDS:g} s; is it stopped?") from None
    except OSError as error:
        raise ControlError(f"cannot ask the daemon at {path}: {error.strerror or error}; {where}") from error
    try:
        answer = json.loads(line)
    except ValueError:
        raise ControlError(f"the daemon at {path} hung up; does it run as this user?") from None
    if "error" in answer:
        raise ControlError(f"the daemon at {path}: {answer['error']}")
    assert isinstance(answer, dict)
    return answer
