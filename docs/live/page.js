// The page: controls, and what the worker's answers look like.  All computing is the worker's.

import { curves, largest, mark, maps, overlay, valueAt } from "./draw.js";

const $ = (id) => document.getElementById(id);
const live = document.querySelector(".live"), problem = live.querySelector(".problem");

// ---- the worker ----------------------------------------------------------------------------------

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let calls = 0;

function ask(name, given = {}, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject });
    worker.postMessage({ id: calls, do: name, ...given }, transfer);
  });
}

worker.onmessage = ({ data: { id, result, error, progress } }) => {
  if (progress) return learnt(progress);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};
worker.onerror = (event) => complain(new Error(event.message || "The worker of this page could not be started."));

function complain(error) {
  problem.textContent = error.message;
  problem.hidden = false;
}

// Runs what a control does; a failure is told at the top of the page.
const doing = (action) => async (...given) => {
  try {
    problem.hidden = true;
    await action(...given);
  } catch (error) {
    complain(error);
  }
};

// ---- training --------------------------------------------------------------------------------------

let data, about, training = false, shown = { loss: [], training: [], test: [] };

function learnt({ steps, loss, accuracy, test, filters }) {
  if (loss !== undefined) {
    shown.loss.push([steps, loss]);
    shown.training.push([steps, accuracy]);
  }
  if (test) shown.test.push([steps, test.accuracy]);
  drawCurves();
  drawFilters(filters);
  const parts = [`${steps} steps`];
  if (loss !== undefined) parts.push(`loss ${loss.toFixed(3)}`);
  if (test) parts.push(`${(100 * test.accuracy).toFixed(1)} % of the test images right`);
  $("state").textContent = parts.join(" · ");
  live.dataset.steps = steps;
  if (test) live.dataset.accuracy = test.accuracy;
}

function drawCurves() {
  const finite = shown.loss.map(([, value]) => value).filter(Number.isFinite);
  curves($("loss"), [{ name: "loss", colour: "loss", points: shown.loss }], Math.max(2.5, ...finite.slice(-200)));
  curves($("accuracy"), [{ name: "test", colour: "accuracy", points: shown.test },
                         { name: "training", colour: "faint", points: shown.training }], 1);
}

function drawFilters({ shape: [F, K, , C], values }) {
  const laid = new Float32Array(values.length); // (F,K,K,C) to (K,K,F*C)
  for (let f = 0; f < F; f++) {
    for (let cell = 0; cell < K * K; cell++) {
      for (let c = 0; c < C; c++) laid[cell * F * C + f * C + c] = values[(f * K * K + cell) * C + c];
    }
  }
  maps($("filters"), [K, K, F * C], laid);
}

function begun(description) {
  about = description;
  shown = { loss: [], training: [], test: [] };
  learnt(description);
  $("state").textContent = `${about.model}, ${about.parameters.toLocaleString("en")} parameters · ${$("state").textContent}`;
  $("label").replaceChildren(new Option("(not said)", ""), ...about.classNames.map((name, i) => new Option(name, i)));
}

async function choose() {
  await stop();
  const name = $("dataset").value, response = await fetch(new URL(data[name].file, import.meta.url));
  const bytes = await response.arrayBuffer();
  begun(await ask("choose", { name, about: data[name], bytes }, [bytes]));
  await another();
}

async function train() {
  training = true;
  $("train").textContent = "Pause";
  $("step").disabled = true;
  try {
    learnt(await ask("train", { pauseBetween: $("slow").checked ? 300 : 0 }));
  } finally {
    training = false;
    $("train").textContent = "Train";
    $("step").disabled = false;
  }
  await look();
}

async function stop() {
  if (training) await ask("pause");
}

const settings = () => {
  const lr = 10 ** Number($("rate").value);
  $("rate-value").textContent = lr.toPrecision(2);
  return { lr, batchSize: Number($("batch").value), wrongSign: $("wrong").checked };
};

// ---- one image -------------------------------------------------------------------------------------

let image, layers = [], laid = [], stage = 0, chosen = null, index = 0;

async function another() {
  index = (index + 37) % data[$("dataset").value].test;
  const found = await ask("image", { index: data[$("dataset").value].train + index });
  image = found.image;
  $("label").value = found.label;
  await look();
}

async function look() {
  const label = $("label").value === "" ? null : Number($("label").value);
  overlay($("pad"), about.imageShape, image, null);
  const found = await ask("look", { image, label });
  layers = found.layers;
  live.dataset.loss = found.loss;
  bars(found.probs, label);
  build(found);
  showStages();
}

function bars(probs, label) {
  const best = probs.indexOf(Math.max(...probs));
  $("bars").replaceChildren(...about.classNames.flatMap((name, i) => {
    const [text, bar, number] = ["span", "i", "span"].map((tag) => document.createElement(tag));
    text.textContent = name;
    text.className = i === label ? "right" : "";
    bar.style.width = `${100 * probs[i]}%`;
    number.textContent = `${(100 * probs[i]).toFixed(1)} %${i === best ? " ←" : ""}`;
    return [text, bar, number];
  }));
  live.dataset.predicted = best;
}

// A stage each for the layers forward, the loss, and the layers backward.
function build({ loss, probs }) {
  const forward = layers.map((layer, i) => ({ layer, i, back: false, text: forwardText(layer) }));
  const backward = loss === null ? [] : [...layers.keys()].reverse().map((i) => (
    { layer: layers[i], i, back: true, text: backwardText(i) }));
  const lossText = loss === null
    ? "Say what the image shows, and the loss and its gradients follow."
    : `The loss is −log(${probs[$("label").value].toPrecision(3)}) = ${loss.toFixed(4)}.`;
  const all = [...forward, { layer: null, text: lossText }, ...backward];
  laid = all.map(({ layer, i, back, text }) => ({ text, i, back, ...stageOf(layer, i, back) }));
  $("numbers").replaceChildren();
  $("stages").before($("numbers")); // it may lie in a stage, all of which are replaced
  $("stages").replaceChildren(...laid.map(({ element }) => element));
  stage = Math.min(stage, laid.length - 1);
}

function stageOf(layer, i, back) {
  const element = document.createElement("div");
  element.className = "stage";
  if (!layer) {
    element.innerHTML = "<h3>loss</h3>";
    return { element };
  }
  const [H, W, C] = layer.shape.length === 3 ? layer.shape : [1, layer.shape[0], 1];
  const flat = layer.shape.length !== 3, columns = Math.ceil(Math.sqrt(W * 4));
  const shape = flat ? [Math.ceil(W / columns), columns, 1] : [H, W, C];
  const values = back ? layer.gradient : layer.values;
  const filled = flat ? Float32Array.from({ length: shape[0] * columns }, (_, k) => values[k] ?? 0) : values;
  const title = document.createElement("h3"), frame = document.createElement("div");
  const canvas = document.createElement("canvas"), over = document.createElement("canvas");
  title.textContent = `${back ? "gradient at " : ""}${layer.name}${layer.name === layer.kind ? "" : ` (${layer.kind})`}: ` +
    `${layer.shape.join("×")}, at most ${largest(values).toPrecision(3)}`;
  frame.className = "maps";
  over.className = "over";
  frame.append(canvas, over);
  element.append(title, frame);
  const places = maps(canvas, shape, filled);
  frame.style.maxWidth = `min(34rem, ${canvas.width * 6}px)`;
  if (!back && !flat && i > 0) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${layer.name}: choose a value with the arrow keys, another map with page up and down`);
    canvas.onclick = (event) => pick(i, valueAt(places, canvas, event));
    canvas.onkeydown = (event) => keys(event, i, shape);
  }
  return { element, canvas, over, places };
}

const forwardText = ({ kind, name, shape }) => ({
  image: "The image, normalised: the mean of all training pixels is 0.",
  convolution: `${name} lays each of its ${shape[2]} filters over every neighbourhood and sums the products.`,
  ReLU: `${name} makes negative numbers 0.`,
  "max-pool": `${name} keeps the largest number of each window.`,
  flatten: "All maps become one row of numbers.",
  dense: `${name} computes ${shape[0]} weighted sums of all numbers before it.`,
})[kind];

function backwardText(i) {
  if (i === layers.length - 1) return "The gradient of the loss by the last sums is the probability, less 1 for the right class.";
  const { name, kind } = layers[i + 1];
  return {
    convolution: `Through ${name}: each pixel gets the gradients of the sums that it was part of, times the weights.`,
    ReLU: `Through ${name}: where its output is 0, the gradient stops.`,
    "max-pool": `Through ${name}: the gradient goes to the winner of each window, all others get 0.`,
    flatten: "The row of gradients becomes maps again.",
    dense: `Through ${name}: each number gets the gradients of all sums, times its weights.`,
  }[kind];
}

function showStages() {
  laid.forEach(({ element }, k) => element.classList.toggle("on", k <= stage));
  $("story").textContent = laid[stage].text;
  $("backward").disabled = stage === 0;
  $("forward").disabled = $("all").disabled = stage === laid.length - 1;
}

async function pick(layer, place) {
  if (!place) return;
  chosen = { layer, ...place };
  laid.forEach(({ over }) => over && (over.width = 0));
  const { over, canvas, places } = laid[layer];
  mark(over, canvas, places, place);
  tell(await ask("explain", chosen));
}

function keys(event, layer, [H, W, C]) {
  const by = { ArrowUp: [-1, 0, 0], ArrowDown: [1, 0, 0], ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0],
               PageUp: [0, 0, -1], PageDown: [0, 0, 1] }[event.key];
  if (!by) return;
  event.preventDefault();
  const from = chosen?.layer === layer ? chosen : { row: 0, column: 0, channel: 0 };
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  pick(layer, { row: within(from.row + by[0], H), column: within(from.column + by[1], W),
                channel: within(from.channel + by[2], C) });
}

// The numbers of a window, times the weights, and their sum; the products add up to the value on the map.
function tell({ kind, K, channels, window, weights, bias, result }) {
  const table = (title, numbers) => {
    const rows = [...Array(K).keys()].map((u) => `<tr>${[...Array(K).keys()].map((v) =>
      `<td>${numbers[u * K + v].toFixed(2)}</td>`).join("")}</tr>`);
    return `<table><caption>${title}</caption>${rows.join("")}</table>`;
  };
  const { layer, row, column, channel } = chosen;
  let text = `<p>${layers[layer].name}, map ${channel}, row ${row}, column ${column}: <b>${result.toFixed(4)}</b></p>`;
  if (kind === "convolution") {
    const products = window.map((value, i) => value * weights[i]), sum = products.reduce((a, b) => a + b, bias);
    text += `<p>The sum of ${products.length} products and the bias ${bias.toFixed(4)} is <b>${sum.toFixed(4)}</b>.` +
      `${channels > 1 ? " The first of the input's maps:" : ""}</p>`;
    text += table("window", window) + table("× weights", weights) + table("= products", products);
  } else if (kind === "max-pool") {
    text += `<p>The largest of the window.</p>${table("window", window)}`;
  } else {
    text += `<p>max(0, ${window[0].toFixed(4)})</p>`;
  }
  $("numbers").innerHTML = text;
  laid[layer].element.append($("numbers"));
  live.dataset.explained = result;
}

// ---- drawing ---------------------------------------------------------------------------------------

let pen = false;

function paint(event) {
  if (!pen) return;
  event.preventDefault();
  const [C, H, W] = about.imageShape, box = $("pad").getBoundingClientRect(), radius = H / 14;
  const x = (event.clientX - box.left) * W / box.width - 0.5, y = (event.clientY - box.top) * H / box.height - 0.5;
  for (let i = 0; i < H; i++) {
    for (let j = 0; j < W; j++) {
      const ink = 255 * Math.max(0, Math.min(1, radius + 0.7 - Math.hypot(i - y, j - x)));
      for (let c = 0; c < C; c++) image[(c * H + i) * W + j] = Math.max(image[(c * H + i) * W + j], ink);
    }
  }
  overlay($("pad"), about.imageShape, image, null);
}

async function clear() {
  image = new Uint8Array(about.imageShape.reduce((a, b) => a * b, 1));
  $("label").value = "";
  await look();
}

// ---- heat, files -----------------------------------------------------------------------------------

async function heat(name, text) {
  const label = Number(live.dataset.predicted), found = await ask(name, { image, label });
  $("heat").hidden = false;
  overlay($("heat"), about.imageShape, image, found);
  $("heat-text").textContent = text.replace("CLASS", about.classNames[label]);
  live.dataset.heat = Math.max(...found.values);
}

async function open(file) {
  if (!file) return;
  await stop();
  begun(await ask("load", { buffer: await file.arrayBuffer() }));
  const match = Object.keys(data).find((name) => `${data[name].imageShape}` === `${about.imageShape}`);
  if (match) $("dataset").value = match;
  if (match) return another();
  await clear();
}

async function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await ask("save"));
  link.download = "minicnn.safetensors";
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- start -----------------------------------------------------------------------------------------

function connect() {
  $("dataset").onchange = doing(choose);
  $("train").onclick = doing(() => (training ? stop() : train()));
  $("step").onclick = doing(async () => {
    const found = await ask("step");
    learnt({ ...found, accuracy: found.right / settings().batchSize, test: await ask("test") });
    await look();
  });
  $("reset").onclick = doing(async () => { await stop(); begun(await ask("reset")); await look(); });
  for (const id of ["rate", "batch", "wrong"]) $(id).oninput = doing(() => ask("set", settings()));
  $("slow").onchange = doing(async () => { if (training) { await stop(); await train(); } });
  $("next").onclick = doing(another);
  $("clear").onclick = doing(clear);
  $("label").onchange = doing(look);
  $("backward").onclick = () => { stage--; showStages(); };
  $("forward").onclick = () => { stage++; showStages(); };
  $("all").onclick = () => { stage = laid.length - 1; showStages(); };
  $("cam").onclick = doing(() => heat("gradCam", "Red: where the last convolution's maps speak for CLASS."));
  $("cover").onclick = doing(() => heat("occlusion", "Red: where a grey square makes CLASS less probable."));
  $("file").onchange = doing((event) => open(event.target.files[0]));
  $("save").onclick = doing(save);
  $("pad").onpointerdown = (event) => { pen = true; $("pad").setPointerCapture(event.pointerId); paint(event); };
  $("pad").onpointermove = paint;
  $("pad").onpointerup = doing(async () => { pen = false; $("label").value = ""; await look(); });
  $("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
  $("drop").ondragleave = () => $("drop").classList.remove("over");
  $("drop").ondrop = doing(async (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    await open(event.dataTransfer.files[0]);
  });
  addEventListener("resize", drawCurves);
  new MutationObserver(() => about && doing(async () => { drawCurves(); await look(); })())
    .observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
}

// A module with one SIMD instruction: a browser that cannot compile it cannot run the kernels.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

await doing(async () => {
  if (location.protocol === "file:") {
    throw new Error("From a folder the browser starts no worker: python -m http.server -d build/site, then http://localhost:8000/live/");
  }
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Error("This browser has no WebAssembly with SIMD, which the kernels need; one of 2023 or later has.");
  }
  connect();
  const fetched = await Promise.all(["kernels.wasm", "data.json"].map((name) => fetch(new URL(name, import.meta.url))));
  data = await fetched[1].json();
  const module = await fetched[0].arrayBuffer();
  await ask("start", { module }, [module]);
  await ask("set", settings());
  await choose();
  live.dataset.ready = "yes";
})();
