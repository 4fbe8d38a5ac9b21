// A network out of the layers of kernels.js: forward, backward, and a step of gradient descent.
//
// The models are those of minicnn.models with the same names, layers and shapes, so that checkpoints go both ways.

import * as ops from "./kernels.js";

const { Tensor } = ops;

// ---- layers: forward(x) keeps what backward(dy) needs ------------------------------------------

class Layer {
  constructor(name) { this.name = name; }
  parameters() { return []; }
  forget() {} // what forward() kept beside its output
}

// A weight and a bias, with their gradients and the optimizer's momentum buffers.
class Weighted extends Layer {
  constructor(name, weightShape, random) {
    super(name);
    const fanIn = weightShape.slice(1).reduce((a, b) => a * b, 1), bound = 1 / Math.sqrt(fanIn);
    const uniform = (shape) => {
      const made = Tensor.zeros(shape);
      made.view().forEach((_, i, values) => { values[i] = (2 * random() - 1) * bound; });
      return made;
    };
    this.weight = uniform(weightShape);
    this.bias = uniform([weightShape[0]]);
    for (const what of ["weight", "bias"]) {
      this[`${what}Gradient`] = Tensor.zeros(this[what].shape);
      this[`${what}Buffer`] = Tensor.zeros(this[what].shape);
    }
  }

  parameters() {
    return ["weight", "bias"].map((what) => ({
      name: `${this.name}.${what}`, layer: this, value: this[what],
      gradient: this[`${what}Gradient`], buffer: this[`${what}Buffer`],
    }));
  }
}

export class Conv2d extends Weighted {
  kind = "convolution";
  constructor(name, channels, filters, size, padding, random) {
    super(name, [filters, size, size, channels], random);
    this.padding = padding;
  }
  forward(x) { return ops.conv2d(x, this.weight, this.bias, this.padding); }
  backward(dy, x, y, wanted) {
    return ops.conv2dGradients(dy, x, this.weight, this.padding, this.weightGradient, this.biasGradient, wanted);
  }
}

export class Dense extends Weighted {
  kind = "dense";
  constructor(name, inputs, outputs, random) { super(name, [outputs, inputs], random); }
  forward(x) { return ops.dense(x, this.weight, this.bias); }
  backward(dy, x) { return ops.denseGradients(dy, x, this.weight, this.weightGradient, this.biasGradient); }
}

export class ReLU extends Layer {
  kind = "ReLU";
  forward(x) { return ops.relu(x); }
  backward(dy, x, y) { return ops.reluGradients(dy, y); }
}

export class MaxPool2d extends Layer {
  kind = "max-pool";
  constructor(name, size) { super(name); this.size = size; }
  forward(x) {
    const [y, argmax] = ops.maxPool2d(x, this.size);
    this.argmax = argmax;
    return y;
  }
  backward(dy, x) { return ops.maxPool2dGradients(dy, this.argmax, x.shape, this.size); }
  forget() { this.argmax?.free(); this.argmax = null; }
}

export class Flatten extends Layer {
  kind = "flatten";
  forward(x) { return ops.flatten(x); }
  backward(dy, x) { return ops.flattenGradients(dy, x.shape); }
}

// ---- models ------------------------------------------------------------------------------------

const MODELS = {
  lenet5(classes, [C, H, W], random) {
    const [h, w] = [H, W].map((size) => Math.floor((Math.floor(size / 2) - 4) / 2));
    return [
      new Conv2d("conv1", C, 6, 5, 2, random), new ReLU("relu1"), new MaxPool2d("pool1", 2),
      new Conv2d("conv2", 6, 16, 5, 0, random), new ReLU("relu2"), new MaxPool2d("pool2", 2),
      new Flatten("flatten"), new Dense("fc1", 16 * h * w, 120, random), new ReLU("relu3"),
      new Dense("fc2", 120, 84, random), new ReLU("relu4"), new Dense("fc3", 84, classes, random),
    ];
  },
  simple_cnn(classes, [C, H, W], random) {
    const [h, w] = [H, W].map((size) => Math.floor(size / 4));
    return [
      new Conv2d("conv1", C, 32, 3, 1, random), new ReLU("relu1"), new MaxPool2d("pool1", 2),
      new Conv2d("conv2", 32, 64, 3, 1, random), new ReLU("relu2"), new MaxPool2d("pool2", 2),
      new Flatten("flatten"), new Dense("fc1", 64 * h * w, 128, random), new ReLU("relu3"),
      new Dense("fc2", 128, classes, random),
    ];
  },
};
export const modelNames = Object.keys(MODELS);

// Numbers in [0, 1) from a seed.  Source: mulberry32 by Tommy Ettinger, in the public domain.
export function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export class Network {
  // about: {model, classNames, imageShape [C,H,W], mean [C], std [C]}
  constructor(about, seed = 0) {
    Object.assign(this, about);
    this.layers = MODELS[about.model](about.classNames.length, about.imageShape, generator(seed + 1));
  }

  parameters() { return this.layers.flatMap((layer) => layer.parameters()); }

  // The normalised batch (N,H,W,C) of images, each a Uint8Array (C,H,W).
  batch(images) {
    const [C, H, W] = this.imageShape, values = new Float32Array(images.length * C * H * W);
    images.forEach((image, n) => {
      for (let c = 0; c < C; c++) {
        for (let i = 0; i < H * W; i++) {
          values[(n * H * W + i) * C + c] = (image[c * H * W + i] / 255 - this.mean[c]) / this.std[c];
        }
      }
    });
    return Tensor.from([images.length, H, W, C], values);
  }

  // All activations: the input, then the output of every layer.  The caller frees them with forget().
  forward(x) {
    const trace = [x];
    for (const layer of this.layers) trace.push(layer.forward(trace.at(-1)));
    return trace;
  }

  // The gradient of each activation of the trace, last one first computed; parameters get theirs.
  // Without `input` the images get no gradient: training has no use for it.
  backward(trace, dlogits, input = false) {
    const gradients = new Array(trace.length).fill(null);
    gradients[trace.length - 1] = dlogits;
    for (let i = this.layers.length - 1; i >= 0; i--) {
      gradients[i] = this.layers[i].backward(gradients[i + 1], trace[i], trace[i + 1], i > 0 || input);
    }
    return gradients;
  }

  forget(...lists) {
    lists.flat().forEach((tensor) => tensor?.free());
    this.layers.forEach((layer) => layer.forget());
  }

  // One step of gradient descent with momentum.  A negative lr climbs the loss instead.
  step(images, labels, { lr, momentum }) {
    const trace = this.forward(this.batch(images));
    const { loss, probs, dlogits } = ops.softmaxCrossEntropy(trace.at(-1), labels);
    const gradients = this.backward(trace, dlogits);
    for (const p of this.parameters()) ops.sgd(p.value, p.gradient, p.buffer, lr, momentum);
    const right = rightOnes(probs, labels);
    this.forget(trace, gradients, probs);
    return { loss, right };
  }

  // The mean loss and the share of right answers over images that are not learnt from.
  evaluate(images, labels, size = 100) {
    let loss = 0, right = 0;
    for (let first = 0; first < images.length; first += size) {
      const some = labels.slice(first, first + size);
      const trace = this.forward(this.batch(images.slice(first, first + size)));
      const found = ops.softmaxCrossEntropy(trace.at(-1), some);
      loss += found.loss * some.length;
      right += rightOnes(found.probs, some);
      this.forget(trace, found.probs, found.dlogits);
    }
    return { loss: loss / images.length, accuracy: right / images.length };
  }

  free() {
    for (const p of this.parameters()) [p.value, p.gradient, p.buffer].forEach((tensor) => tensor.free());
  }
}

export function highest(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}

function rightOnes(probs, labels) {
  const K = probs.shape[1], values = probs.view();
  return labels.filter((label, n) => highest(values.subarray(n * K, (n + 1) * K)) === label).length;
}
