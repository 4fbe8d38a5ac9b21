// Checkpoints of minicnn: safetensors files, read and written so that `minicnn predict` takes them.
//
// A file is 8 bytes with the length of its header, the header as JSON, and the numbers.  Weights are
// (F,C,KH,KW) there and (F,KH,KW,C) in the kernels' memory.

import { Network, modelNames } from "./network.js";

// (F,C,K,K) to (F,K,K,C), or back with `back`; other arrays stay.
function reordered(values, [F, K, , C], back) {
  if (C === undefined) return values;
  const made = new Float32Array(values.length);
  for (let f = 0, there = 0; f < F; f++) {
    for (let c = 0; c < C; c++) {
      for (let cell = 0; cell < K * K; cell++, there++) {
        const here = (f * K * K + cell) * C + c;
        if (back) made[there] = values[here];
        else made[here] = values[there];
      }
    }
  }
  return made;
}

const inFile = ([F, K, , C]) => (C === undefined ? (K === undefined ? [F] : [F, K]) : [F, C, K, K]);

// The network that a file holds.  Throws an Error with one sentence for the reader.
export function read(buffer) {
  const { header, data } = parts(buffer);
  const text = header.__metadata__?.minicnn;
  if (!text) throw new Error("This is a safetensors file, but no checkpoint of minicnn.");
  const state = parsed(text) ?? {}, model = state.config?.model;
  const isComplete = [state.class_names, state.image_shape, state.mean, state.std].every(Array.isArray);
  if (!model || !isComplete) throw new Error("This checkpoint does not say which model and images it is of.");
  if (!modelNames.includes(model)) {
    throw new Error(`This page has ${modelNames.join(" and ")}; the file holds ${model}.`);
  }
  const network = new Network({
    model, classNames: state.class_names, imageShape: state.image_shape, mean: state.mean, std: state.std,
  });
  for (const { name, value } of network.parameters()) {
    const entry = header[`model.${name}`], shape = inFile(value.shape);
    if (!entry || entry.dtype !== "F32" || `${entry.shape}` !== `${shape}`) {
      const got = entry ? `${entry.dtype} (${entry.shape})` : "nothing";
      network.free();
      throw new Error(`${name}: expected F32 (${shape}), got ${got}.`);
    }
    const bytes = data.slice(...entry.data_offsets);
    value.view().set(reordered(new Float32Array(bytes), value.shape, false));
  }
  return network;
}

function parts(buffer) {
  const torn = new Error("This is no safetensors file, or it is torn.");
  if (buffer.byteLength < 8) throw torn;
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > buffer.byteLength - 8) throw torn;
  const header = parsed(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  if (header === null || typeof header !== "object") throw torn;
  const data = buffer.slice(8 + length), entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  if (entries.some(([, entry]) => !(entry?.data_offsets?.[1] <= data.byteLength))) throw torn;
  return { header, data };
}

// What a text of JSON says, or null if it is none.
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// A checkpoint of the network after so many steps; `defaults` are the settings of a run that the page has not.
export function write(network, defaults, settings) {
  const tensors = Object.fromEntries(network.parameters().map(({ name, value }) => [
    `model.${name}`, { shape: inFile(value.shape), values: reordered(value.copy(), value.shape, true) },
  ]));
  const names = Object.keys(tensors).sort(), header = {};
  let offset = 0;
  for (const name of names) {
    const end = offset + tensors[name].values.byteLength;
    header[name] = { dtype: "F32", shape: tensors[name].shape, data_offsets: [offset, end] };
    offset = end;
  }
  const text = JSON.stringify(state(network, defaults, settings));
  let crc = crc32(new TextEncoder().encode(text));
  for (const name of names) {
    crc = crc32(new Uint8Array(tensors[name].values.buffer), crc32(new TextEncoder().encode(name), crc));
  }
  header.__metadata__ = { minicnn: text, minicnn_format: "1", minicnn_crc32: crc.toString(16).padStart(8, "0") };
  let json = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(32);
  padded.set(json);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);
  return new Blob([length, padded, ...names.map((name) => tensors[name].values)]);
}

function state(network, defaults, { dataset, lr, momentum, batchSize, steps, seed }) {
  return {
    config: { ...defaults, model: network.model, dataset, lr, momentum, batch_size: batchSize, seed },
    class_names: network.classNames, image_shape: network.imageShape, mean: network.mean, std: network.std,
    fingerprint: "live page", epoch: 0, batch: 0,
    sums: { loss: 0, correct: 0, images: 0, seconds: 0 }, history: [], best_accuracy: -1, optimizer_steps: steps,
    generators: {}, split: {},
  };
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

// The checksum of zlib, going on from an earlier one.
export function crc32(bytes, before = 0) {
  let crc = ~before;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
