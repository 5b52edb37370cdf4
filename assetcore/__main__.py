"""`python -m assetcore` is `aipctl`."""

from __future__ import annotations

from assetcore.preload import main

if __name__ == "__main__":
    main()
