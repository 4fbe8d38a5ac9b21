"""A CNN library in which every operation exists three times: NumPy, fused C++, CUDA.

Importing it imports NumPy alone; torch, scikit-learn and matplotlib load when something needs them.
It prints nothing: what takes long, such as building a backend, is told to the logger "minicnn".
"""

import logging

from minicnn import models, optim, schedules
from minicnn.backends import Backend, BackendUnavailable, available_backends, get_backend
from minicnn.graph.session import InferenceSession
from minicnn.layers import Sequential
from minicnn.threads import set_num_threads
from minicnn.trainer import Trainer

__all__ = [
    "Backend", "BackendUnavailable", "InferenceSession", "Sequential", "Trainer", "available_backends",
    "get_backend", "models", "optim", "schedules", "set_num_threads",
]  # fmt: skip
__version__ = "0.1.0"
logging.getLogger("minicnn").addHandler(logging.NullHandler())
