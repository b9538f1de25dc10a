"""Hosts: vLLM and transformers, which load the weights of a model and run its forwards with tree attention.

Invariant: which packages transformers takes for available is settled here, before any module of this room imports one of its models.
"""

import transformers.integrations.accelerate
import transformers.utils

# transformers imports scikit-learn and SciPy, which takes seconds, for assisted generation and object detection, which no host does.
transformers.utils.is_sklearn_available = lambda: False
transformers.utils.is_scipy_available = lambda: False
# It wants accelerate wherever a model is to be placed, also on the meta device, where accelerate does nothing.
transformers.integrations.accelerate.is_accelerate_available = lambda *_: True
