"""What holds for all tests, whoever starts them.

The time that an example of a property takes says nothing, machines are noisy. What a shell starts in the background ignores Ctrl-C, and so
would every command that a test interrupts.
"""

import signal

from hypothesis import settings

settings.register_profile("assetcore", deadline=None)
settings.load_profile("assetcore")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
