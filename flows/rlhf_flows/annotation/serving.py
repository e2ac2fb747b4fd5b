"""Running the annotators' server: on this machine without any set-up, beyond it with TLS and invitations."""

from __future__ import annotations

import getpass
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from rlhf_core.errors import RlhfError
from rlhf_core.feedback.store import FeedbackStore

LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]"]


@dataclass(frozen=True)
class Address:
    """Where the server listens, and how it is protected."""

    host: str = "127.0.0.1"
    port: int = 8765
    certificate: Path | None = None
    key: Path | None = None
    without_tls: bool = False
    name: str | None = None
    """The host name in links, where it is not `host`."""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Raises RlhfError where the address is public and nothing protects what is sent to it."""
        if (self.certificate is None) != (self.key is None):
            raise RlhfError("TLS takes both a certificate and its key.", remedy="Give --certificate and --key.")
        if not self.local and self.certificate is None and not self.without_tls:
            raise RlhfError(
                f"{self.host} is reached from other machines, and without TLS everybody on the way reads along.",
                remedy="Give --certificate and --key, or --without-tls where a proxy in front of this server has TLS.",
            )

    @property
    def url(self) -> str:
        """Where people open it."""
        host = self.name or ("127.0.0.1" if self.local else self.host)
        proxied = self.name is not None and self.certificate is None
        scheme = "https" if self.certificate is not None or (self.without_tls and proxied) else "http"
        return f"{scheme}://{host}" if proxied else f"{scheme}://{host}:{self.port}"

    @property
    def hosts(self) -> list[str]:
        """The names it answers to. On this machine only its own: a page of another site cannot pose as it."""
        return LOCAL_NAMES if self.local and self.name is None else [self.name] if self.name else ["*"]


def serve(store_url: str, address: Address) -> None:
    """Serve until Ctrl-C. Answers are on the disk before the page says so, so that it can be killed at any moment."""
    import uvicorn

    from rlhf_flows.annotation.app import make_app

    address.check()
    with FeedbackStore.open(store_url) as store:
        guest = getpass.getuser() if address.local and address.name is None else None
        app = make_app(store, guest, hosts=address.hosts, url=address.url, tls=address.url.startswith("https"))
        # No access log: it would hold the tokens of the invitations.
        uvicorn.run(
            app, host=address.host, port=address.port, log_level="warning", access_log=False, server_header=False,
            ssl_certfile=address.certificate, ssl_keyfile=address.key, timeout_graceful_shutdown=5,
        )  # fmt: skip
