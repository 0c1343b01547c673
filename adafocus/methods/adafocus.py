"""AdaFocus (Wang et al., ICCV 2021): four stages, of which the third learns by reinforcement where to look.

pretrain: both networks as classifiers of whole frames. warmup: focuser and classifier on random patches. ppo: the
policy alone. finetune: the classifier on the policy's patches. (The reference's stages 0 to 3.)
"""

from __future__ import annotations

from adafocus.methods.method import Method
from adafocus.models.adafocus import PARTS, AdaFocus
from adafocus.stages.finetune import Finetune
from adafocus.stages.ppo import PPO
from adafocus.stages.pretrain import Pretrain
from adafocus.stages.warmup import Warmup

ADAFOCUS = Method(title="AdaFocus", build=AdaFocus, parts=PARTS, stages=(Pretrain, Warmup, PPO, Finetune))
