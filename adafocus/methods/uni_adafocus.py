"""Uni-AdaFocus (Wang et al., TPAMI 2024): one stage; it chooses frames, and boxes of their own size in them."""

from __future__ import annotations

from adafocus.methods.method import Method
from adafocus.models.adafocus import PARTS
from adafocus.models.uni_adafocus import UniAdaFocus
from adafocus.stages.unified import Unified

UNI_ADAFOCUS = Method(title="Uni-AdaFocus", build=UniAdaFocus, parts=PARTS, stages=(Unified,), chooses_frames=True)
