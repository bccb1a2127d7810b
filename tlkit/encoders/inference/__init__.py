"""inference: to be described."""

from .forward_pass import FrozenForward as FrozenForward
