// The kernels of csrc/cpu, compiled to WebAssembly, as functions of tensors.
//
// A Tensor is float32 numbers in the module's memory.  Images are channels-last there: (N,H,W,C).  The
// addresses stay right when the memory grows; views of it do not, so a view is made anew each time.

let wasm; // the module's exports

// Loads the module from its bytes.  Throws where the browser has no WebAssembly with SIMD.
export async function load(bytes) {
  const nothing = () => 0;
  const imports = {
    env: { emscripten_notify_memory_growth: nothing },
    wasi_snapshot_preview1: {
      proc_exit: (status) => { throw new Error(`the kernels ended with status ${status}`); },
      environ_sizes_get: nothing, environ_get: nothing, fd_close: nothing, fd_write: nothing, fd_seek: nothing,
    },
  };
  const { instance } = await WebAssembly.instantiate(bytes, imports);
  wasm = instance.exports;
  wasm._initialize();
}

export class Tensor {
  constructor(shape, Type = Float32Array) {
    this.shape = shape;
    this.size = shape.reduce((a, b) => a * b, 1);
    this.Type = Type;
    this.address = wasm.allocate(Math.max(1, this.size) * Type.BYTES_PER_ELEMENT);
    if (!this.address) throw new Error("the browser gives no more memory");
  }

  static from(shape, values, Type = Float32Array) {
    const made = new Tensor(shape, Type);
    made.view().set(values);
    return made;
  }

  static zeros(shape) { return Tensor.from(shape, new Float32Array(shape.reduce((a, b) => a * b, 1))); }

  view() { return new this.Type(wasm.memory.buffer, this.address, this.size); }
  copy() { return this.view().slice(); }
  free() { wasm.release(this.address); }
}

const at = (tensor) => (tensor ? tensor.address : 0);

export function conv2d(x, weight, bias, padding) {
  const [N, H, W, C] = x.shape, [F, K] = weight.shape;
  const y = new Tensor([N, H + 2 * padding - K + 1, W + 2 * padding - K + 1, F]);
  wasm.conv2d(at(x), at(weight), at(bias), at(y), N, C, H, W, F, K, padding);
  return y;
}

// wanted = false leaves out dx, which nothing needs of the first layer in training.
export function conv2dGradients(dy, x, weight, padding, dw, db, wanted) {
  const [N, H, W, C] = x.shape, [F, K] = weight.shape;
  const dx = wanted ? new Tensor(x.shape) : null;
  wasm.conv2d_gradients(at(dy), at(x), at(weight), at(dx), at(dw), at(db), N, C, H, W, F, K, padding);
  return dx;
}

export function relu(x) {
  const y = new Tensor(x.shape);
  wasm.relu(at(x), at(y), x.size);
  return y;
}

export function reluGradients(dy, y) {
  const dx = new Tensor(y.shape);
  wasm.relu_gradients(at(dy), at(y), at(dx), y.size);
  return dx;
}

// Returns the output and the number of each window's winner.
export function maxPool2d(x, K) {
  const [N, H, W, C] = x.shape, shape = [N, Math.floor(H / K), Math.floor(W / K), C];
  const y = new Tensor(shape), argmax = new Tensor(shape, Uint8Array);
  wasm.max_pool2d(at(x), at(y), at(argmax), N, C, H, W, K);
  return [y, argmax];
}

export function maxPool2dGradients(dy, argmax, shape, K) {
  const [N, H, W, C] = shape, dx = new Tensor(shape);
  wasm.max_pool2d_gradients(at(dy), at(argmax), at(dx), N, C, H, W, K);
  return dx;
}

export function flatten(x) {
  const [N, H, W, C] = x.shape, y = new Tensor([N, C * H * W]);
  wasm.flatten(at(x), at(y), N, C, H, W);
  return y;
}

export function flattenGradients(dy, shape) {
  const [N, H, W, C] = shape, dx = new Tensor(shape);
  wasm.flatten_gradients(at(dy), at(dx), N, C, H, W);
  return dx;
}

export function dense(x, weight, bias) {
  const [N, size] = x.shape, [out] = weight.shape, y = new Tensor([N, out]);
  wasm.dense(at(x), at(weight), at(bias), at(y), N, size, out);
  return y;
}

export function denseGradients(dy, x, weight, dw, db) {
  const [N, size] = x.shape, [out] = weight.shape, dx = new Tensor(x.shape);
  wasm.dense_gradients(at(dy), at(x), at(weight), at(dx), at(dw), at(db), N, size, out);
  return dx;
}

// The mean loss of a batch, the probabilities (N,K), and the gradient of that loss by the logits.
export function softmaxCrossEntropy(logits, labels) {
  const [N, K] = logits.shape;
  const classes = Tensor.from([N], BigInt64Array.from(labels, BigInt), BigInt64Array);
  const loss = new Tensor([1]), probs = new Tensor([N, K]), dlogits = new Tensor([N, K]);
  wasm.softmax_cross_entropy(at(logits), at(classes), at(loss), at(probs), N, K);
  wasm.softmax_cross_entropy_gradients(at(probs), at(classes), at(dlogits), N, K);
  const value = loss.view()[0];
  classes.free();
  loss.free();
  return { loss: value, probs, dlogits };
}

export function sgd(value, gradient, buffer, lr, momentum) {
  wasm.sgd(at(value), at(gradient), at(buffer), value.size, lr, momentum);
}
