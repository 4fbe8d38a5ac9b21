// The page: controls, and what the worker's answers look like.  All computing is the worker's.

import { curves, frame, largest, mark, maps, overlay, valueAt } from "./draw.js";

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

let about, trained = null; // the end of a training under way
let shown = { steps: 0, loss: [], training: [], test: [] };

function learnt({ steps, loss, accuracy, test, filters }) {
  if (loss !== undefined) {
    shown.loss.push([steps, loss]);
    shown.training.push([steps, accuracy]);
  }
  if (test) shown.test.push([steps, test.accuracy]);
  shown.steps = steps;
  drawCurves();
  drawFilters(filters);
  const parts = [`${steps} steps`];
  if (loss !== undefined) parts.push(`loss ${loss.toFixed(3)}`);
  if (test) parts.push(`${(100 * test.accuracy).toFixed(0)} of 100 test images right`);
  $("state").ariaLive = trained ? "off" : "polite"; // four times a second are too many to be read out
  $("state").textContent = parts.join(" · ");
  live.dataset.steps = steps;
  if (test) live.dataset.accuracy = test.accuracy;
}

function drawCurves() {
  const finite = shown.loss.map(([, value]) => value).filter(Number.isFinite);
  curves($("loss"), [{ name: "loss", colour: "loss", points: shown.loss }], shown.steps, Math.max(2.5, ...finite.slice(-200)));
  curves($("accuracy"), [{ name: "test", colour: "accuracy", points: shown.test },
                         { name: "training", colour: "faint", points: shown.training }], shown.steps, 1);
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
  shown = { steps: 0, loss: [], training: [], test: [] };
  learnt(description);
  $("state").textContent = `${about.model}, ${about.parameters.toLocaleString("en")} parameters · ${$("state").textContent}`;
  $("label").replaceChildren(new Option("(not said)", ""), ...about.classNames.map((name, i) => new Option(name, i)));
}

async function choose() {
  await stop();
  begun(await ask("choose", { name: $("dataset").value }));
  await another();
}

async function train() {
  $("train").textContent = "Pause";
  $("step").disabled = true;
  trained = ask("train");
  try {
    const end = await trained;
    trained = null;
    learnt(end);
    await look();
  } finally {
    trained = null;
    $("train").textContent = "Train";
    $("step").disabled = false;
  }
}

// The answer to "pause" comes after the last step, but before or after the end of "train": both are waited for.
async function stop() {
  if (trained) await Promise.all([ask("pause"), trained.catch(() => {})]);
}

const settings = () => {
  const lr = 10 ** Number($("rate").value);
  $("rate-value").textContent = lr.toPrecision(2);
  const pauseBetween = $("slow").checked ? 300 : 0;
  return { lr, batchSize: Number($("batch").value), wrongSign: $("wrong").checked, pauseBetween };
};

// ---- one image -------------------------------------------------------------------------------------

let image, layers = [], laid = [], stage = 0, chosen = null, index = 0;

async function another() {
  index += 37; // neighbours are often alike
  const found = await ask("image", { index });
  image = found.image;
  $("label").value = found.label;
  await look();
}

async function look() {
  const label = $("label").value === "" ? null : Number($("label").value);
  overlay($("pad"), about.imageShape, image, null);
  $("heat").hidden = true;
  $("heat-text").textContent = "";
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
  laid = all.map((one) => ({ text: one.text, ...stageOf(one) }));
  $("numbers").replaceChildren();
  $("stages").before($("numbers")); // it may lie in a stage, all of which are replaced
  $("stages").replaceChildren(...laid.map(({ element }) => element));
  stage = Math.min(stage, laid.length - 1);
}

function stageOf({ layer, i, back, text }) {
  const element = document.createElement("div");
  element.className = "stage";
  if (!layer) {
    element.innerHTML = `<h3>loss</h3><p>${text}</p>`;
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
  frame.style.maxWidth = `min(34rem, ${canvas.width * (canvas.width < 16 ? 16 : 6)}px)`;
  if (!back && !flat && i > 0) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${layer.name}: choose a value with the arrow keys, another map with page up and down`);
    canvas.onclick = doing((event) => pick(i, valueAt(places, canvas, event)));
    canvas.onkeydown = doing((event) => keys(event, i, shape));
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
  const asked = chosen = { layer, ...place };
  laid.forEach(({ over }) => over && (over.width = 0));
  const { over, canvas, places } = laid[layer];
  mark(over, canvas, places, place);
  const found = await ask("explain", asked);
  if (chosen === asked) tell(asked, found); // or another one has been chosen since
}

function keys(event, layer, [H, W, C]) {
  const by = { ArrowUp: [-1, 0, 0], ArrowDown: [1, 0, 0], ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0],
               PageUp: [0, 0, -1], PageDown: [0, 0, 1] }[event.key];
  if (!by) return;
  event.preventDefault();
  const from = chosen?.layer === layer ? chosen : { row: 0, column: 0, channel: 0 };
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  return pick(layer, { row: within(from.row + by[0], H), column: within(from.column + by[1], W),
                channel: within(from.channel + by[2], C) });
}

// The numbers of a window, times the weights, and their sum; the products add up to the value on the map.
function tell({ layer, row, column, channel }, { kind, K, top, left, channels, window, weights, bias, result }) {
  const { over, canvas, places } = laid[layer - 1], first = kind === "convolution" ? 0 : channel;
  mark(over, canvas, places, { row: top, column: left, channel: first }, K); // the window, in the map before
  // a class keeps the site from dressing it as a table of text
  const table = (title, numbers) => {
    const rows = [...Array(K).keys()].map((u) => `<tr>${[...Array(K).keys()].map((v) =>
      `<td>${numbers[u * K + v].toFixed(2)}</td>`).join("")}</tr>`);
    return `<table class="window"><caption>${title}</caption>${rows.join("")}</table>`;
  };
  let text = `<p>${layers[layer].name}, map ${channel}, row ${row}, column ${column}: <b>${result.toFixed(4)}</b></p>`;
  if (kind === "convolution") {
    const products = window.map((value, i) => value * weights[i]), sum = products.reduce((a, b) => a + b, bias);
    text += `<p>The sum of ${products.length} products and the bias ${bias.toFixed(4)} is <b>${sum.toFixed(4)}</b>.` +
      `${channels > 1 ? " The first of the input's maps:" : ""}</p>`;
    text += `<div class="tables">${table("window", window)}${table("× weights", weights)}${table("= products", products)}</div>`;
  } else if (kind === "max-pool") {
    text += `<p>The largest of the window.</p><div class="tables">${table("window", window)}</div>`;
  } else {
    text += `<p>max(0, ${window[0].toFixed(4)})</p>`;
  }
  $("numbers").innerHTML = text;
  laid[layer].element.append($("numbers"));
  live.dataset.explained = result;
}

// ---- drawing ---------------------------------------------------------------------------------------

let pen = null; // where the stroke is, as [x, y] in pixels of the image; null if none is drawn
let cursor = [0, 0]; // where the keys draw

function placeOf(event) {
  const [, H, W] = about.imageShape, box = $("pad").getBoundingClientRect();
  return [(event.clientX - box.left) * W / box.width - 0.5, (event.clientY - box.top) * H / box.height - 0.5];
}

// Draws a stroke from the pen to a place.
function paint([x, y]) {
  const [C, H, W] = about.imageShape, radius = H / 14, [fromX, fromY] = pen ?? [x, y];
  const dx = x - fromX, dy = y - fromY, length = dx * dx + dy * dy || 1;
  for (let i = 0; i < H; i++) {
    for (let j = 0; j < W; j++) {
      const along = Math.max(0, Math.min(1, ((j - fromX) * dx + (i - fromY) * dy) / length));
      const away = Math.hypot(i - fromY - along * dy, j - fromX - along * dx);
      const ink = 255 * Math.max(0, Math.min(1, radius + 0.7 - away));
      for (let c = 0; c < C; c++) image[(c * H + i) * W + j] = Math.max(image[(c * H + i) * W + j], ink);
    }
  }
  pen = [x, y];
  overlay($("pad"), about.imageShape, image, null);
}

async function drawn() {
  pen = null;
  $("label").value = "";
  await look();
}

// The arrow keys move the cursor, and the space bar draws there.
async function drawByKeys(event) {
  const by = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0], " ": [0, 0] }[event.key];
  if (!by) return;
  event.preventDefault();
  const [, H, W] = about.imageShape;
  cursor = [Math.max(0, Math.min(W - 1, cursor[0] + by[0])), Math.max(0, Math.min(H - 1, cursor[1] + by[1]))];
  if (event.key === " ") {
    paint(cursor);
    await drawn();
  }
  frame($("pad"), cursor);
}

async function clear() {
  image = new Uint8Array(about.imageShape.reduce((a, b) => a * b, 1));
  $("label").value = "";
  await look();
}

// ---- heat, files -----------------------------------------------------------------------------------

async function heat(name, text) {
  const label = Number(live.dataset.predicted);
  if (label < 0) throw new Error("The network's numbers are no longer finite, so it predicts nothing. Start anew.");
  const found = await ask(name, { image, label });
  $("heat").hidden = false;
  overlay($("heat"), about.imageShape, image, found);
  $("heat-text").textContent = text.replace("CLASS", about.classNames[label]);
  live.dataset.heat = Math.max(...found.values);
}

async function open(file) {
  if (!file) return;
  await stop();
  begun(await ask("load", { buffer: await file.arrayBuffer() }));
  $("dataset").value = about.dataset ?? "";
  await (about.dataset ? another() : clear());
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
  $("train").onclick = doing(() => (trained ? stop() : train()));
  $("step").onclick = doing(async () => {
    const found = await ask("step");
    learnt({ ...found, accuracy: found.right / settings().batchSize, test: await ask("test") });
    await look();
  });
  $("reset").onclick = doing(async () => { await stop(); begun(await ask("reset")); await look(); });
  for (const id of ["rate", "batch", "wrong", "slow"]) $(id).oninput = doing(() => ask("set", settings()));
  $("next").onclick = doing(another);
  $("clear").onclick = doing(clear);
  $("label").onchange = doing(look);
  $("backward").onclick = () => { stage--; showStages(); };
  $("forward").onclick = () => { stage++; showStages(); };
  $("all").onclick = () => { stage = laid.length - 1; showStages(); };
  $("cam").onclick = doing(() => heat("gradCam", "Red: where the last convolution's maps speak for CLASS."));
  $("cover").onclick = doing(() => heat("occlusion", "Red: where a grey square makes CLASS less probable."));
  $("file").onchange = doing(async ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that the same file can be chosen again
    await open(file);
  });
  $("save").onclick = doing(save);
  $("pad").onpointerdown = (event) => { $("pad").setPointerCapture(event.pointerId); paint(placeOf(event)); };
  $("pad").onpointermove = (event) => { if (pen) paint(placeOf(event)); };
  $("pad").onpointerup = $("pad").onpointercancel = doing(drawn);
  $("pad").onkeydown = doing(drawByKeys);
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

// Nothing can be used before it works.
const inert = (yes) => live.querySelectorAll("section").forEach((section) => { section.inert = yes; });

inert(true);
await doing(async () => {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Error("This browser has no WebAssembly with SIMD, which the kernels need; one of 2023 or later has.");
  }
  await ask("start");
  await ask("set", settings());
  connect();
  await choose();
  inert(false);
  live.dataset.ready = "yes";
})();
