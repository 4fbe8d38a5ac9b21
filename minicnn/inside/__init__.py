"""What a trained network sees in an image: each method is one file, with its source.

    trace = Trace(model, x)                   every value of a forward pass, and gradients to each
    activations(trace)                        each layer's strongest maps
    grad_cam(model, x, classes)               where the last maps speak for a class
    occlusion(probabilities, x, classes)      which pixels a class needs
    nearest(features(model, images), one)     which images look alike to the network

All of them are in evaluation mode and change nothing in the model.
"""

from minicnn.inside.activations import Activation, activations
from minicnn.inside.grad_cam import grad_cam
from minicnn.inside.neighbours import features, nearest
from minicnn.inside.occlusion import occlusion
from minicnn.inside.trace import Trace

__all__ = ["Activation", "Trace", "activations", "features", "grad_cam", "nearest", "occlusion"]
