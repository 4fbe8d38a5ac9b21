"""Layers with torch.nn's names and shapes, one file each, and the containers."""

from minicnn.layers.adaptive_avg_pool2d import AdaptiveAvgPool2d
from minicnn.layers.avg_pool2d import AvgPool2d
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.container import Container
from minicnn.layers.conv2d import Conv2d
from minicnn.layers.dense import Dense
from minicnn.layers.dropout import Dropout
from minicnn.layers.flatten import Flatten
from minicnn.layers.layer import Layer
from minicnn.layers.max_pool2d import MaxPool2d
from minicnn.layers.network import Network
from minicnn.layers.parallel import Parallel
from minicnn.layers.relu import ReLU
from minicnn.layers.relu6 import ReLU6
from minicnn.layers.residual import Residual
from minicnn.layers.sequential import Sequential
from minicnn.layers.softmax import Softmax

__all__ = [
    "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Container", "Conv2d", "Dense", "Dropout",
    "Flatten", "Layer", "MaxPool2d", "Network", "Parallel", "ReLU", "ReLU6", "Residual", "Sequential",
    "Softmax",
]  # fmt: skip
