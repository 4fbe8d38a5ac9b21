// The gradient to the input of a convolution that a ReLU or a max-pool follows.

#define MINICNN_FUSED true
#include "conv2d_input.cu"
