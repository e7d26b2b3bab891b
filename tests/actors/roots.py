"""One root certificate in place of all that the web trusts: nothing in these tests is signed by any of those.

Each httpx client reads the roots that `certifi` names, which is 45 ms of CPU, and a test makes many of them. The one
here is of a key that was thrown away.
"""

from __future__ import annotations

import os
from pathlib import Path

import certifi

_ROOT = Path(__file__).with_name("root.pem")


def trust_one_root() -> None:
    """From here on httpx clients of this process, and of its children, trust that one unless told otherwise."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(name, None)
    certifi.where = lambda: str(_ROOT)
