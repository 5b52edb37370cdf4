"""`python -m assetcore` is `aipctl`."""

from __future__ import annotations

from assetcore.cli import main

if __name__ == "__main__":
    main()
