"""AdaFocus: models, training stages and evaluation. Imports torch, but neither Ray nor MLflow.

Importing it sets OMP_WAIT_POLICY=PASSIVE for this process and those that it starts, unless it is set already: threads
of torch that wait for each other sleep, where they would keep a core busy that another process needs.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # has to come before torch is loaded, which reads it once
