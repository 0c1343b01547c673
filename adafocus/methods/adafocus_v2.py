"""AdaFocusV2 (Wang et al., CVPR 2022): one stage, in which all parts learn together, where to look by gradients."""

from __future__ import annotations

from adafocus.methods.method import Method
from adafocus.models.adafocus import PARTS
from adafocus.models.adafocus_v2 import AdaFocusV2
from adafocus.stages.joint import Joint

ADAFOCUS_V2 = Method(title="AdaFocusV2", build=AdaFocusV2, parts=PARTS, stages=(Joint,))
