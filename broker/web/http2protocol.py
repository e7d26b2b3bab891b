"""What of h2 is as a server here wants it: how many streams, how large a head, how large a table of headers.

Source: RFC 9113, 5.1.2 and 6.5.2.
"""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from broker.web.http2 import STREAMS_MAX

_HEADER_TABLE_BYTES = 4096


class Http2Protocol(H2Connection):
    """The protocol of one connection.

    Args:
        head_max_bytes: a larger head is answered 431; one of twice the size ends the connection.
    """

    MAX_CLOSED_STREAMS = 1000

    def __init__(self, head_max_bytes: int) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding=None))
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: 2 * head_max_bytes,
            },
        )
        self.decoder.max_header_list_size = 2 * head_max_bytes

    @property
    def open_inbound_streams(self) -> int:
        # Over the announced number h2 ends the connection. The stream is refused, as the RFC allows too (5.1.2).
        return super().open_inbound_streams - STREAMS_MAX

    def bound_header_table(self) -> None:
        """A table as large as the peer likes would be our memory."""
        self.encoder.header_table_size = min(self.encoder.header_table_size, _HEADER_TABLE_BYTES)
