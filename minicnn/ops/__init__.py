"""The NumPy reference: one file per operation, forward and backward, with the derivation.

Letters: N C H W are batch, channels, height, width; F filters, KH KW the kernel, OH OW the output's size.
An argument ``dy`` is the gradient of the loss L to the output y; ``dx`` is that to the input x, and so on.

All arrays of a call have one dtype, float32 or float64, and so have its results; labels (int64), masks
(bool) and a pool's ``argmax`` are exceptions.  `cast` lets activations be bfloat16 as well.  Wrong
shapes, dtypes and values raise ValueError, with the words of minicnn/shapes.py.  A call changes none of its
arguments, except running statistics in training and what an optimizer updates.
"""
