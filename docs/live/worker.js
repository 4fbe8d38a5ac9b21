// The page's work happens here, beside the page, so that the page never waits.
//
// Each message from the page is {id, do, ...arguments}; the answer is {id, result} or {id, error}.  While it
// trains, the worker also sends {progress} by itself.

import * as kernels from "./kernels.js";
import { Network, generator } from "./network.js";
import { read, write } from "./checkpoint.js";
import { gradCam, occlusion, windowOf } from "./inside.js";

const sets = {}; // by name: {about, images, labels}
let network, dataset, random, steps, settings, training = false, held = null;

const commands = {
  async start({ module, seed = 0 }) {
    await kernels.load(module);
    settings = { lr: 0.05, momentum: 0.9, batchSize: 32, seed, wrongSign: false };
  },

  // Begins anew with a dataset: random weights, no steps.
  async choose({ name, about, bytes }) {
    if (!sets[name]) {
      const all = new Uint8Array(bytes), size = about.imageShape.reduce((a, b) => a * b, 1);
      const count = about.train + about.test;
      sets[name] = {
        about, images: Array.from({ length: count }, (_, i) => all.subarray(i * size, (i + 1) * size)),
        labels: [...all.subarray(count * size)],
      };
    }
    dataset = name;
    return commands.reset();
  },

  reset() {
    const { about } = sets[dataset];
    replace(new Network({ model: about.model, classNames: about.classNames, imageShape: about.imageShape,
                          mean: about.mean, std: about.std }, settings.seed));
    return description();
  },

  set(changes) { Object.assign(settings, changes); },

  step() {
    const found = oneStep();
    return { ...found, steps, ...filters() };
  },

  // Trains until pause(), or for so many steps; the answer comes at the end.
  async train({ most = Infinity, pauseBetween = 0 }) {
    training = true;
    let sent = 0, losses = 0, right = 0, seen = 0, count = 0;
    for (let done = 0; training && done < most; done++) {
      const found = oneStep();
      losses += found.loss; right += found.right; seen += settings.batchSize; count++;
      const now = performance.now();
      if (now - sent > 250 || pauseBetween) {
        sent = now;
        postMessage({ progress: { steps, loss: losses / count, accuracy: right / seen, test: test(), ...filters() } });
        losses = right = seen = count = 0;
      }
      // Messages such as pause() are heard only between two tasks.
      await new Promise((go) => setTimeout(go, pauseBetween));
    }
    training = false;
    return { steps, test: test(250), ...filters() };
  },

  pause() { training = false; },

  // Everything that happens to one image: all activations, and with a label the loss and all gradients.
  // The trace is kept for explain().
  look({ image, label = null }) {
    letGo();
    const trace = network.forward(network.batch([image]));
    const target = label ?? 0, found = kernels.softmaxCrossEntropy(trace.at(-1), [target]);
    const gradients = label === null ? [] : network.backward(trace, found.dlogits, true);
    held = { trace, others: [found.probs, ...(gradients.length ? gradients : [found.dlogits])] };
    return {
      layers: trace.map((tensor, i) => ({
        name: i ? network.layers[i - 1].name : "image", kind: i ? network.layers[i - 1].kind : "image",
        shape: tensor.shape.slice(1), values: tensor.copy(), gradient: gradients[i]?.copy() ?? null,
      })),
      probs: found.probs.copy(), loss: label === null ? null : found.loss,
    };
  },

  explain({ layer, row, column, channel }) { return windowOf(network, held.trace, layer - 1, row, column, channel); },

  gradCam({ image, label }) { letGo(); return gradCam(network, image, label); },
  occlusion({ image, label }) { letGo(); return occlusion(network, image, label); },

  image({ index }) {
    const { images, labels } = sets[dataset];
    return { image: images[index].slice(), label: labels[index] };
  },

  load({ buffer }) {
    const loaded = read(buffer);
    replace(loaded);
    return description();
  },

  save() { return write(network, { ...settings, dataset, steps }); },

  test() { return test(Infinity); },
};

function replace(other) {
  letGo();
  network?.free();
  network = other;
  random = generator(settings.seed + 1000);
  steps = 0;
}

function letGo() {
  if (held) network.forget(held.trace, held.others);
  held = null;
}

// Whether the network in hand takes the images of the dataset in hand.
const fits = () => `${network.imageShape}` === `${sets[dataset].about.imageShape}` &&
  network.classNames.length === sets[dataset].about.classNames.length;

function oneStep() {
  if (!fits()) throw new Error(`This network takes images of ${network.imageShape.slice(1).join("×")} pixels, other than the chosen ones.`);
  letGo();
  const { images, labels, about } = sets[dataset];
  const rows = Array.from({ length: settings.batchSize }, () => Math.floor(random() * about.train));
  const lr = settings.wrongSign ? -settings.lr : settings.lr;
  const found = network.step(rows.map((row) => images[row]), rows.map((row) => labels[row]), { ...settings, lr });
  steps++;
  return found;
}

function test(most = 100) {
  if (!fits()) return null;
  const { images, labels, about } = sets[dataset], end = about.train + Math.min(most, about.test);
  return network.evaluate(images.slice(about.train, end), labels.slice(about.train, end));
}

const filters = () => {
  const first = network.layers[0];
  return { filters: { shape: first.weight.shape, values: first.weight.copy() } };
};

const description = () => ({
  model: network.model, classNames: network.classNames, imageShape: network.imageShape, steps,
  parameters: network.parameters().reduce((sum, p) => sum + p.value.size, 0), test: test(), ...filters(),
});

onmessage = async ({ data: { id, do: name, ...given } }) => {
  try {
    postMessage({ id, result: await commands[name](given) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};

