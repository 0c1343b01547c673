"""AdaFocus+: AdaFocus that skips frames, of our own design, for the paper names the idea but no mechanism.

pretrain, warmup and ppo are AdaFocus's own, and their results are shared with it. skip: a gate learns by reinforcement
which frames the focuser looks at, and the classifier to do without the others.
"""

from __future__ import annotations

from adafocus.methods.method import Method
from adafocus.models.adafocus_plus import PARTS, AdaFocusPlus
from adafocus.stages.ppo import PPO
from adafocus.stages.pretrain import Pretrain
from adafocus.stages.skip import Skip
from adafocus.stages.warmup import Warmup

ADAFOCUS_PLUS = Method(title="AdaFocus+", build=AdaFocusPlus, parts=PARTS, stages=(Pretrain, Warmup, PPO, Skip))
