// Looks inside a network: Grad-CAM, occlusion, and how one output value came about.

import * as ops from "./kernels.js";

// How much each place of the last convolution's maps speaks for a class, as minicnn.inside.grad_cam has it.
// Source: Selvaraju et al. 2017, arXiv:1610.02391
export function gradCam(network, image, label) {
  const x = network.batch([image]), trace = network.forward(x), logits = trace.at(-1);
  const dlogits = ops.Tensor.zeros(logits.shape);
  dlogits.view()[label] = 1;
  const gradients = network.backward(trace, dlogits);
  const last = network.layers.findLastIndex((layer) => layer.kind === "convolution") + 2; // after its ReLU
  const [, H, W, C] = trace[last].shape, maps = trace[last].view(), slopes = gradients[last].view();
  const heat = new Float32Array(H * W);
  for (let c = 0; c < C; c++) {
    let weight = 0;
    for (let i = 0; i < H * W; i++) weight += slopes[i * C + c] / (H * W);
    for (let i = 0; i < H * W; i++) heat[i] += weight * maps[i * C + c];
  }
  network.forget(trace, gradients);
  return { shape: [H, W], values: heat.map((value) => Math.max(0, value)) };
}

// By how much the probability of a class falls where a grey square covers the image.
// Source: Zeiler and Fergus 2014, arXiv:1311.2901
export function occlusion(network, image, label) {
  const [C, H, W] = network.imageShape, side = Math.max(2, Math.round(H / 7)), grey = 255 * network.mean[0];
  const covered = [];
  for (let i = 0; i < H; i++) {
    for (let j = 0; j < W; j++) {
      const copy = image.slice();
      for (let c = 0; c < C; c++) {
        for (let r = Math.max(0, i - (side >> 1)); r < Math.min(H, i - (side >> 1) + side); r++) {
          copy.fill(grey, (c * H + r) * W + Math.max(0, j - (side >> 1)),
                    (c * H + r) * W + Math.min(W, j - (side >> 1) + side));
        }
      }
      covered.push(copy);
    }
  }
  const base = probabilities(network, [image])[0][label];
  return { shape: [H, W], values: Float32Array.from(probabilities(network, covered), (row) => base - row[label]) };
}

// One array of probabilities an image.
export function probabilities(network, images, size = 100) {
  const rows = [];
  for (let first = 0; first < images.length; first += size) {
    const some = images.slice(first, first + size), trace = network.forward(network.batch(some));
    const { probs, dlogits } = ops.softmaxCrossEntropy(trace.at(-1), some.map(() => 0));
    const K = probs.shape[1], values = probs.copy();
    some.forEach((_, n) => rows.push(values.subarray(n * K, (n + 1) * K)));
    network.forget(trace, probs, dlogits);
  }
  return rows;
}

// What output value (row, column, channel) of layer number `index` was computed from: the window of its input
// and, in a convolution, the weights of its filter; both (K,K,C).  Outside of the image the window is 0.
export function windowOf(network, trace, index, row, column, channel) {
  const layer = network.layers[index], x = trace[index], y = trace[index + 1];
  const [, H, W, C] = x.shape, [, , width, F] = y.shape;
  const K = layer.kind === "convolution" ? layer.weight.shape[1] : layer.kind === "max-pool" ? layer.size : 1;
  const stride = layer.kind === "max-pool" ? layer.size : 1, padding = layer.padding ?? 0;
  const channels = layer.kind === "convolution" ? [...Array(C).keys()] : [channel];
  const top = row * stride - padding, left = column * stride - padding, values = x.view();
  const window = [];
  for (const c of channels) {
    for (let u = 0; u < K; u++) {
      for (let v = 0; v < K; v++) {
        const inside = top + u >= 0 && top + u < H && left + v >= 0 && left + v < W;
        window.push(inside ? values[((top + u) * W + left + v) * C + c] : 0);
      }
    }
  }
  const result = y.view()[(row * width + column) * F + channel];
  const found = { kind: layer.kind, K, top, left, channels: channels.length, window, result };
  if (layer.kind === "convolution") {
    const weights = layer.weight.view();
    found.weights = channels.flatMap((c) => Array.from({ length: K * K }, (_, cell) =>
      weights[(channel * K * K + cell) * C + c]));
    found.bias = layer.bias.view()[channel];
  }
  return found;
}
