"""What holds for all tests: the time that an example of a property takes says nothing, machines are noisy."""

from hypothesis import settings

settings.register_profile("assetcore", deadline=None)
settings.load_profile("assetcore")
