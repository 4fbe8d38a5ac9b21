// Pictures on canvases.  Colours come from the theme, so that they fit light and dark.

const colour = (name) => getComputedStyle(document.querySelector(".live")).getPropertyValue(`--live-${name}`).trim();

const rgb = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));

function mix(a, b, share) { return a.map((from, i) => from + (b[i] - from) * share); }

// The colours of a scale from -1 to 1: one hue for negative numbers, one for positive, the ground for 0.
function scale() {
  const ground = rgb(colour("ground")), low = rgb(colour("negative")), high = rgb(colour("positive"));
  return (value) => mix(ground, value < 0 ? low : high, Math.min(1, Math.abs(value)));
}

export const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// Maps (H,W,C) side by side, a pixel of the canvas each; returns how they lie.
export function maps(canvas, [H, W, C], values, most = largest(values) || 1, shade = scale()) {
  const columns = Math.min(C, Math.max(1, Math.floor(Math.sqrt(C * 4 * H / W)))), rows = Math.ceil(C / columns);
  canvas.width = columns * (W + 1) - 1;
  canvas.height = rows * (H + 1) - 1;
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  for (let c = 0; c < C; c++) {
    const left = (c % columns) * (W + 1), top = Math.floor(c / columns) * (H + 1);
    for (let i = 0; i < H; i++) {
      for (let j = 0; j < W; j++) {
        const place = 4 * ((top + i) * canvas.width + left + j);
        picture.data.set([...shade(values[(i * W + j) * C + c] / most), 255], place);
      }
    }
  }
  context.putImageData(picture, 0, 0);
  return { columns, H, W, C };
}

// Which value of the maps lies at a point of the canvas, or null between two maps.
export function valueAt({ columns, H, W, C }, canvas, event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) * canvas.width / box.width);
  const y = Math.floor((event.clientY - box.top) * canvas.height / box.height);
  const channel = Math.floor(y / (H + 1)) * columns + Math.floor(x / (W + 1));
  const row = y % (H + 1), column = x % (W + 1);
  return row < H && column < W && channel >= 0 && channel < C ? { row, column, channel } : null;
}

// A frame around a square of the maps' values, on a canvas that lies over them; what is outside of the map is cut off.
export function mark(over, canvas, { columns, H, W }, { row, column, channel }, size = 1) {
  const enlarged = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio / canvas.width));
  over.width = canvas.width * enlarged;
  over.height = canvas.height * enlarged;
  const context = over.getContext("2d");
  const top = Math.max(0, row), left = Math.max(0, column);
  context.strokeStyle = colour("mark");
  context.lineWidth = Math.max(2, enlarged / 3);
  context.strokeRect(((channel % columns) * (W + 1) + left) * enlarged, (Math.floor(channel / columns) * (H + 1) + top) * enlarged,
                     (Math.min(W, column + size) - left) * enlarged, (Math.min(H, row + size) - top) * enlarged);
}

// An image (C,H,W) of bytes with heat over it: {shape [h,w], values}, drawn where it is positive.
export function overlay(canvas, [C, H, W], image, heat) {
  canvas.width = W;
  canvas.height = H;
  const context = canvas.getContext("2d"), picture = context.createImageData(W, H);
  const ground = rgb(colour("ground")), ink = rgb(colour("ink")), hot = rgb(colour("heat"));
  const [h, w] = heat ? heat.shape : [1, 1], most = heat ? Math.max(1e-12, ...heat.values) : 1;
  for (let i = 0; i < H; i++) {
    for (let j = 0; j < W; j++) {
      let grey = 0;
      for (let c = 0; c < C; c++) grey += image[(c * H + i) * W + j] / 255 / C;
      const warm = heat ? Math.max(0, heat.values[Math.floor(i * h / H) * w + Math.floor(j * w / W)]) / most : 0;
      picture.data.set([...mix(mix(ground, ink, grey), hot, 0.7 * warm), 255], 4 * (i * W + j));
    }
  }
  context.putImageData(picture, 0, 0);
}

// A frame around pixel [x, y] of a small canvas.
export function frame(canvas, [x, y]) {
  const context = canvas.getContext("2d");
  context.strokeStyle = colour("mark");
  context.lineWidth = 0.3;
  context.strokeRect(x + 0.15, y + 0.15, 0.7, 0.7);
}

// Lines over steps 0 to last: series is [{name, colour, points: [[step, value], ...]}]; values from 0 to top.
export function curves(canvas, series, last, top) {
  const ratio = devicePixelRatio, width = canvas.clientWidth * ratio, height = canvas.clientHeight * ratio;
  if (!width) return;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), size = 12 * ratio, left = 3 * size, bottom = height - 1.6 * size;
  context.font = `${size}px sans-serif`;
  context.lineWidth = ratio;
  context.strokeStyle = context.fillStyle = colour("faint");
  for (let part = 0; part <= 4; part++) {
    const y = bottom - (bottom - size) * part / 4;
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(width, y);
    context.stroke();
    context.fillText((top * part / 4).toFixed(top > 4 ? 1 : 2), 0, y + size / 3);
  }
  context.textAlign = "right";
  context.fillText(`${last} steps`, width, height - 0.3 * size);
  context.textAlign = "left";
  series.forEach(({ name, colour: key, points }, i) => {
    context.strokeStyle = context.fillStyle = colour(key);
    context.lineWidth = 2 * ratio;
    context.beginPath();
    points.forEach(([step, value], k) => {
      const x = left + (width - left) * step / Math.max(1, last), y = bottom - (bottom - size) * Math.min(1, value / top);
      context[k ? "lineTo" : "moveTo"](x, y);
    });
    context.stroke();
    context.fillText(name, left + size + i * 9 * size, height - 0.3 * size);
  });
}
