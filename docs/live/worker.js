// The page's work happens here, beside the page, so that the page never waits.
//
// Each message from the page is {id, do, ...arguments}; the answer is {id, result} or {id, error}.  While it
// trains, the worker also sends {progress} by itself.

import * as kernels from "./kernels.js";
import { Network, generator } from "./network.js";
import { read, write } from "./checkpoint.js";
import { gradCam, occlusion, windowOf } from "./inside.js";

const TESTED = 100; // so many test images are looked at, always the same ones
const sets = {}; // by name: {images, labels}, as soon as they are needed
let data, network, random, steps, settings;
let dataset = null; // the name of the network's images, or null if they are not on this page
let training = false, trained = Promise.resolve();
let looked = null, held = null; // the image last looked at, and its activations

const commands = {
  async start({ seed = 0 }) {
    const [module, about] = await Promise.all([fetched("kernels.wasm"), fetched("data.json")]);
    await kernels.load(await module.arrayBuffer());
    data = await about.json();
    settings = { lr: 0.05, momentum: 0.9, batchSize: 32, seed, wrongSign: false, pauseBetween: 0 };
  },

  // Begins anew with a dataset: random weights, no steps.
  async choose({ name }) {
    await take(name);
    return commands.reset();
  },

  reset() {
    const about = data.sets[known()];
    replace(new Network({ model: about.model, classNames: about.classNames, imageShape: about.imageShape,
                          mean: about.mean, std: about.std }, settings.seed));
    return description();
  },

  set(changes) { Object.assign(settings, changes); },

  step() {
    const found = oneStep();
    return { ...found, steps, ...filters() };
  },

  // Trains until pause(); the answer comes at the end.
  async train() {
    await commands.pause();
    training = true;
    trained = trainOn();
    await trained.finally(() => { training = false; });
    return { steps, test: test(), ...filters() };
  },

  // The answer comes when the last step is done.
  async pause() {
    training = false;
    await trained.catch(() => {}); // train() tells the error
  },

  // Everything that happens to one image: all activations, and with a label the loss and all gradients.
  look({ image, label = null }) {
    looked = image;
    hold(image);
    const { trace } = held, found = kernels.softmaxCrossEntropy(trace.at(-1), [label ?? 0]);
    const gradients = label === null ? [found.dlogits] : network.backward(trace, found.dlogits, true);
    held.others = [found.probs, ...gradients];
    return {
      layers: trace.map((tensor, i) => ({
        name: i ? network.layers[i - 1].name : "image", kind: i ? network.layers[i - 1].kind : "image",
        shape: tensor.shape.slice(1), values: tensor.copy(),
        gradient: label === null ? null : gradients[i].copy(),
      })),
      probs: found.probs.copy(), loss: label === null ? null : found.loss,
    };
  },

  explain({ layer, row, column, channel }) {
    if (!held) hold(looked); // a step or a heat map has let go of it
    return windowOf(network, held.trace, layer - 1, row, column, channel);
  },

  gradCam({ image, label }) { letGo(); return gradCam(network, image, label); },
  occlusion({ image, label }) { letGo(); return occlusion(network, image, label); },

  // Number `index` of the test images, counted round and round.
  image({ index }) {
    const { images, labels } = sets[known()], { train, test: count } = data.sets[dataset];
    const row = train + index % count;
    return { image: images[row].slice(), label: labels[row] };
  },

  async load({ buffer }) {
    const loaded = read(buffer), same = (name) => fitting(data.sets[name], loaded);
    const name = Object.keys(data.sets).find(same) ?? null;
    if (name) await take(name);
    dataset = name;
    replace(loaded);
    return description();
  },

  save() { return write(network, data.settings, { ...settings, dataset: dataset ?? "unknown", steps }); },

  test() { return test(); },
};

// A file beside this one.
async function fetched(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} could not be fetched: ${response.status} ${response.statusText}`);
  return response;
}

// Makes a dataset the one in hand.
async function take(name) {
  if (!sets[name]) {
    const about = data.sets[name], size = about.imageShape.reduce((a, b) => a * b, 1);
    const all = new Uint8Array(await (await fetched(about.file)).arrayBuffer()), count = about.train + about.test;
    sets[name] = {
      images: Array.from({ length: count }, (_, i) => all.subarray(i * size, (i + 1) * size)),
      labels: [...all.subarray(count * size)],
    };
  }
  dataset = name;
}

const fitting = (about, { imageShape, classNames }) =>
  `${about.imageShape}` === `${imageShape}` && `${about.classNames}` === `${classNames}`;

function known() {
  if (dataset === null) throw new Error("The images that this network was trained on are not on this page; it can look at what you draw.");
  return dataset;
}

async function trainOn() {
  let sent = 0, losses = 0, right = 0, seen = 0, count = 0;
  while (training) {
    const found = oneStep();
    losses += found.loss; right += found.right; seen += settings.batchSize; count++;
    const now = performance.now();
    if (now - sent > 250 || settings.pauseBetween) {
      sent = now;
      postMessage({ progress: { steps, loss: losses / count, accuracy: right / seen, test: test(), ...filters() } });
      losses = right = seen = count = 0;
    }
    // Messages such as pause() are heard only between two tasks.
    await new Promise((go) => setTimeout(go, settings.pauseBetween));
  }
}

function replace(other) {
  letGo();
  network?.free();
  network = other;
  random = generator(settings.seed + 1000);
  steps = 0;
}

function hold(image) {
  letGo();
  held = { trace: network.forward(network.batch([image])), others: [] };
}

function letGo() {
  if (held) network.forget(held.trace, held.others);
  held = null;
}

function oneStep() {
  const { images, labels } = sets[known()], { train } = data.sets[dataset];
  letGo();
  const rows = Array.from({ length: settings.batchSize }, () => Math.floor(random() * train));
  const lr = settings.wrongSign ? -settings.lr : settings.lr;
  const found = network.step(rows.map((row) => images[row]), rows.map((row) => labels[row]), { ...settings, lr });
  steps++;
  return found;
}

function test() {
  if (dataset === null) return null;
  const { images, labels } = sets[dataset], { train } = data.sets[dataset];
  return network.evaluate(images.slice(train, train + TESTED), labels.slice(train, train + TESTED));
}

const filters = () => {
  const first = network.layers[0];
  return { filters: { shape: first.weight.shape, values: first.weight.copy() } };
};

const description = () => ({
  dataset, model: network.model, classNames: network.classNames, imageShape: network.imageShape, steps,
  parameters: network.parameters().reduce((sum, p) => sum + p.value.size, 0), test: test(), ...filters(),
});

onmessage = async ({ data: { id, do: name, ...given } }) => {
  try {
    postMessage({ id, result: await commands[name](given) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};

