#!/usr/bin/env python3
"""`healthy URL [HOST]`: whether a service answers, for health checks in an image that has no curl.

HOST is the name to ask for, where the service answers to its public name only.
"""

import sys
import urllib.request


def main() -> None:
    """Exit with 0 where the service answers, else with 1 and the reason."""
    url, *host = sys.argv[1:]
    request = urllib.request.Request(url, headers={"Host": host[0]} if host else {})
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
