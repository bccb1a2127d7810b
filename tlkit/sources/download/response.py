"""The bytes of a download: counted, shown, and known to be all of them."""

from __future__ import annotations

import http.client
import sys
import time

import tqdm

_LINE_EVERY = 30.0  # seconds, where there is no terminal


class Response:
    """An HTTP response that notices when the connection is cut.

    `http.client` takes such an end for the end of the answer.

    Attributes:
        received: Bytes read so far.
        length: Bytes that the server announced, or None.
        headers: The headers of the answer.
    """

    def __init__(
        self, response: http.client.HTTPResponse, what: str, *, verbose: int
    ) -> None:
        self.received = 0
        announced = response.headers.get("Content-Length", "")
        self.length = int(announced) if announced.isdecimal() else None
        self.headers = response.headers
        self._response = response
        terminal = sys.stderr.isatty()
        self._lines = bool(verbose) and not terminal
        self._last_line = time.monotonic()
        if verbose:
            print(f"Fetching {what}", file=sys.stderr, flush=True)
        self._bar = tqdm.tqdm(
            total=self.length,
            unit="B",
            unit_scale=True,
            disable=not (verbose and terminal),
        )

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes; `b""` is the end.

        Raises:
            ConnectionError: The end came before all that was announced.
        """
        data = self._response.read() if size < 0 else self._response.read(size)
        self.received += len(data)
        self._bar.update(len(data))
        if not data and size and self.length and self.received < self.length:
            raise ConnectionError(
                f"the connection was cut after {self.received:,} of "
                f"{self.length:,} bytes"
            )
        if self._lines and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            of_all = f" of {self.length / 1e6:,.0f}" if self.length else ""
            line = f"  {self.received / 1e6:,.0f}{of_all} MB"
            print(line, file=sys.stderr, flush=True)
        return data

    def close(self) -> None:
        """Closes the connection and the progress bar."""
        self._bar.close()
        self._response.close()
