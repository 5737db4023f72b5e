// The map: each level's weights on its own cells, linearly between their middles, as `Explanation.map` has it.
const HEAT = [[30, 20, 90], [130, 30, 130], [220, 60, 80], [252, 160, 50], [252, 250, 170]];
const GRID = 320;  // longer side of the map, in its own pixels

const unpacked = new WeakMap();
function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
function floats(text) { return new Float32Array(bytes(text).buffer); }
function once(object, make) {
  if (!unpacked.has(object)) unpacked.set(object, make());
  return unpacked.get(object);
}
function shares(packed) { return once(packed, () => ({ rows: bytes(packed.shares), largest: floats(packed.largest) })); }

function chosenRows() {
  const { layers, heads } = picture(), rows = [];
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      if ((state.layer === null || state.layer === layer) && (state.head === null || state.head === head))
        rows.push(layer * heads + head);
  return rows;
}

function chosenPoints(found) {
  const values = once(found, () => floats(found.points));
  const count = found.pointLevels.length, heads = picture().heads, points = [];
  for (const row of chosenRows())
    for (let p = 0; p < count; p++) {
      if (state.hidden.has(found.pointLevels[p])) continue;
      const at = 3 * (row * count + p);
      points.push({ x: values[at], y: values[at + 1], weight: values[at + 2], level: found.pointLevels[p],
        layer: Math.floor(row / heads), head: row % heads });
    }
  return points;
}

function cellsOf(found) {
  const levels = picture().levels, rows = chosenRows();
  const grids = levels.map((level) => new Float32Array(level.rows * level.columns));
  if (found.points) {
    for (const point of chosenPoints(found)) splat(grids[point.level], levels[point.level], point, rows.length);
    return grids;
  }
  const { rows: bytesOf, largest } = shares(found.attention), size = levels[0].height * levels[0].width;
  const weights = new Float32Array(size);
  for (const row of rows)
    for (let i = 0; i < size; i++) weights[i] += bytesOf[row * size + i] * largest[row] / 255 / rows.length;
  addRow(grids[0], levels[0], state.direct ? weights : followed(weights), 0, 1);
  return grids;
}

function followed(weights) {
  const packed = picture().encoder?.sources;
  if (!packed) return weights;
  const { rows, largest } = shares(packed), size = weights.length, found = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const factor = weights[i] * largest[i] / 255;
    for (let j = 0; j < size; j++) found[j] += rows[i * size + j] * factor;
  }
  return found;
}

function addRow(grid, level, values, from, factor) {
  for (let r = 0; r < level.rows; r++)
    for (let c = 0; c < level.columns; c++)
      grid[r * level.columns + c] += values[from + r * level.width + c] * factor;
}

function splat(grid, level, point, rows) {
  const x = point.x / picture().width * level.columns - 0.5, y = point.y / picture().height * level.rows - 0.5;
  const left = Math.floor(x), top = Math.floor(y);
  for (const [c, across] of [[left, left + 1 - x], [left + 1, x - left]])
    for (const [r, down] of [[top, top + 1 - y], [top + 1, y - top]])
      if (c >= 0 && r >= 0 && c < level.columns && r < level.rows)
        grid[r * level.columns + c] += point.weight * across * down / rows;
}

function spread(grids, levels, width, height) {
  const map = new Float32Array(width * height);
  grids.forEach((grid, number) => {
    const { rows, columns } = levels[number], density = rows * columns;
    const edge = (value, most) => Math.min(Math.max(value, 0), most);
    for (let y = 0; y < height; y++) {
      const v = edge((y + 0.5) / height * rows - 0.5, rows - 1), top = Math.floor(v), down = v - top;
      const below = Math.min(top + 1, rows - 1);
      for (let x = 0; x < width; x++) {
        const u = edge((x + 0.5) / width * columns - 0.5, columns - 1), left = Math.floor(u), across = u - left;
        const right = Math.min(left + 1, columns - 1);
        const upper = grid[top * columns + left] * (1 - across) + grid[top * columns + right] * across;
        const lower = grid[below * columns + left] * (1 - across) + grid[below * columns + right] * across;
        map[y * width + x] += (upper * (1 - down) + lower * down) * density;
      }
    }
  });
  return map;
}

function paint(grids, levels) {
  const canvas = byId("heat"), { width: w, height: h } = picture(), scale = GRID / Math.max(w, h);
  canvas.width = Math.max(1, Math.round(w * scale)); canvas.height = Math.max(1, Math.round(h * scale));
  const map = spread(grids, levels, canvas.width, canvas.height), most = map.reduce((a, b) => Math.max(a, b), 1e-12);
  const context = canvas.getContext("2d"), pixels = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < map.length; i++) {
    const strength = Math.pow(map[i] / most, 0.6), place = strength * (HEAT.length - 1);
    const low = Math.min(Math.floor(place), HEAT.length - 2), rest = place - low;
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = HEAT[low][c] + (HEAT[low + 1][c] - HEAT[low][c]) * rest;
    pixels.data[4 * i + 3] = 255 * (0.24 + 0.5 * strength);
  }
  context.putImageData(pixels, 0, 0);
}
