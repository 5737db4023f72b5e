"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const state = {
  picture: 0, detection: 0, layer: data.first.layer, head: data.first.head, hidden: new Set(),
  map: true, points: true, steps: false, origin: true, asking: false, asked: null, hovered: null,
};
const HEAT = [[30, 20, 90], [130, 30, 130], [220, 60, 80], [252, 160, 50], [252, 250, 170]];
const GRID = 320, MOST_POINTS = 900;
const byId = (id) => document.getElementById(id);
const picture = () => data.pictures[state.picture];
const detection = () => picture().detections[state.hovered ?? state.detection];

/* ---- numbers that travel as base64 ---- */

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

/* ---- which weights are meant ---- */

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

/* ---- the map: each level's weights on its own cells, linearly between their middles ---- */

function cellsOf(found) {
  const levels = picture().levels, rows = chosenRows();
  const grids = levels.map((level) => new Float32Array(level.rows * level.columns));
  if (found.points) {
    for (const point of chosenPoints(found)) splat(grids[point.level], levels[point.level], point, rows.length);
    return grids;
  }
  const { rows: bytesOf, largest } = shares(found.attention), size = levels[0].height * levels[0].width;
  for (const row of rows) addRow(grids[0], levels[0], bytesOf, row * size, largest[row] / 255 / rows.length);
  return grids;
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

/* ---- what lies over the picture ---- */

function mark(kind, attributes, title) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (title) element.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "title")).textContent = title;
  return byId("marks").appendChild(element);
}

function box([left, top, right, bottom], attributes, title) {
  return mark("rect", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top), ...attributes }, title);
}

function drawMarks() {
  const { width, height, detections } = picture(), svg = byId("marks");
  const focused = document.activeElement?.dataset?.box;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const pixel = width / Math.max(1, byId("stage").clientWidth), current = state.hovered ?? state.detection;
  const order = detections.map((_, i) => i).sort((a, b) => area(detections[b].box) - area(detections[a].box));
  for (const i of order) drawBox(detections[i], i, i === current, pixel);
  if (state.asking) { if (state.asked) cross(state.asked, 9 * pixel); }
  else if (detections.length) drawOf(detection(), pixel);
  if (focused !== undefined) svg.querySelector(`[data-box="${focused}"]`)?.focus();
}

const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);

function drawBox(found, i, isCurrent, pixel) {
  const words = `${found.name} ${found.score.toFixed(2)}`;
  if (isCurrent) box(found.box, { class: "under", "stroke-width": 6 });
  const element = box(found.box, { class: "box", stroke: found.colour, "stroke-width": isCurrent ? 3 : 1.6,
    "stroke-opacity": isCurrent ? 1 : 0.75, tabindex: 0, role: "button", "aria-label": words,
    "aria-pressed": isCurrent, "data-box": i });
  element.addEventListener("click", () => select(i));
  element.addEventListener("mouseenter", () => hover(i));
  element.addEventListener("mouseleave", () => hover(null));
  element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(i); } });
  if (!isCurrent) return;
  const y = found.box[1] - 5 * pixel > 12 * pixel ? found.box[1] - 5 * pixel : found.box[1] + 15 * pixel;
  const tag = mark("text", { class: "tag", x: 0, y: 0, transform: `translate(${Math.max(2 * pixel, found.box[0] + 2 * pixel)} ${y}) scale(${pixel})` });
  tag.textContent = words;
}

function drawOf(found, pixel) {
  if (state.steps)
    found.layers.forEach((step, i) => step.box && box(step.box, { class: "step", "stroke-width": 1.4, "stroke-opacity": 0.35 + 0.6 * (i + 1) / found.layers.length }, `after layer ${i + 1}`));
  if (state.origin && found.start?.length === 4) box(found.start, { class: "step", "stroke-width": 1.6 }, "what the first layer began with");
  if (state.points && found.points) drawPoints(found, pixel);
  if (state.origin && found.proposal) cross(found.proposal.xy, 9 * pixel, "the position that proposed the query");
  if (state.origin && found.start?.length === 2) cross(found.start, 9 * pixel, "the point that the query looks from");
}

function drawPoints(found, pixel) {
  const points = chosenPoints(found).sort((a, b) => a.weight - b.weight).slice(-MOST_POINTS);
  const most = points.length ? points[points.length - 1].weight : 1;
  for (const { x, y, weight, level, layer, head } of points) {
    const share = weight / most;
    const circle = mark("circle", { class: "point", cx: x, cy: y, r: pixel * (1.2 + 5.3 * Math.sqrt(share)),
      fill: data.levelColours[level % data.levelColours.length], "fill-opacity": 0.35 + 0.6 * share, "stroke-width": 0.8,
      "stroke-opacity": 0.2 + 0.8 * share },
      `layer ${layer + 1}, head ${head + 1}, level ${level + 1}: weight ${weight.toFixed(3)}`);
    circle.addEventListener("click", () => select(state.hovered ?? state.detection));
  }
}

function cross([x, y], arm, title) {
  const d = `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`;
  mark("path", { class: "cross", d, stroke: "#000b", "stroke-width": 5 });
  mark("path", { class: "cross", d, stroke: "#fff", "stroke-width": 2 }, title);
}

/* ---- the panels ---- */

function button(parent, words, pressed, act, colour) {
  const element = document.createElement("button");
  element.type = "button"; element.setAttribute("aria-pressed", pressed);
  if (colour) element.appendChild(document.createElement("i")).style.background = colour;
  element.append(words);
  element.addEventListener("click", act);
  return parent.appendChild(element);
}

function rebuilt(id, build) {
  const parent = byId(id), had = [...parent.children].indexOf(document.activeElement);
  parent.replaceChildren(); build(parent);
  if (had >= 0) parent.children[had]?.focus();
}

function choices(id, count, now, set) {
  rebuilt(id, (parent) => {
    button(parent, "all", now === null, () => set(null));
    for (let i = 0; i < count; i++) button(parent, `${i + 1}`, now === i, () => set(i));
  });
}

function drawPanels() {
  const { detections, layers, heads, levels } = picture(), found = detection();
  rebuilt("found", (parent) => {
    if (!detections.length) parent.textContent = "Nothing was found in this picture.";
    detections.forEach((each, i) => {
      const element = button(parent, "", i === state.detection, () => select(i), each.colour);
      element.lastChild.remove();
      for (const words of [each.name, each.score.toFixed(3)]) element.appendChild(document.createElement("span")).textContent = words;
      element.addEventListener("mouseenter", () => hover(i));
      element.addEventListener("mouseleave", () => hover(null));
    });
  });
  choices("layers", layers, state.layer, (layer) => change({ layer }));
  choices("heads", heads, state.head, (head) => change({ head }));
  rebuilt("levels", (parent) => levels.forEach((level, i) =>
    button(parent, `${Math.round(picture().width / level.columns)} px`, !state.hidden.has(i), () => toggleLevel(i), data.levelColours[i % data.levelColours.length])));
  byId("levels").parentElement.hidden = levels.length < 2 || !found?.points;
  const kinds = [["map", "map"], ["points", "points"], ["steps", "boxes of the layers"], ["origin", "where it began"]];
  rebuilt("draw", (parent) => kinds.filter(([kind]) => kind !== "points" || found?.points)
    .forEach(([kind, words]) => button(parent, words, state[kind], () => change({ [kind]: !state[kind] }))));
  byId("encoder-part").hidden = !picture().encoder;
  byId("encoder").setAttribute("aria-pressed", state.asking);
  byId("encoder-text").textContent = state.asking
    ? "Move over the picture: the map shows what that place looks at, in the last attention layer of the encoder, as the mean of its heads."
    : "";
  if (found) { facts(found); sides(found); }
  for (const id of ["facts", "sides"]) if (!found) byId(id).replaceChildren();
  byId("sides-part").hidden = !found?.sides;
  legend(found);
}

function overlap(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const both = wide > 0 && high > 0 ? wide * high : 0;
  return both / Math.max(area(a) + area(b) - both, 1e-9);
}

function cell(row, words, kind = "td") { row.appendChild(document.createElement(kind)).append(words); }

function bar(share) {
  const element = document.createElement("span"), inner = document.createElement("b");
  element.className = "bar"; inner.style.width = `${100 * Math.min(1, share)}%`; element.append(inner);
  return element;
}

function facts(found) {
  const table = document.createElement("table"), head = table.insertRow();
  for (const words of ["after", `${found.name}`, "", "IoU with the answer"]) cell(head, words, "th");
  const row = (name, score, box, now) => {
    const line = table.insertRow(); if (now) line.className = "now";
    cell(line, name); cell(line, score === null ? "–" : bar(score)); cell(line, score === null ? "" : score.toFixed(3));
    cell(line, box ? overlap(box, found.box).toFixed(3) : "–");
  };
  if (found.proposal?.box) {
    const same = found.proposal.label === found.label;
    row("encoder", same || found.proposal.label === null ? found.proposal.score : null, found.proposal.box, false);
  }
  found.layers.forEach((step, i) => row(`layer ${i + 1}`, step.score, step.box, i === state.layer));
  const words = document.createElement("p");
  const unread = found.layers.some((step) => step.score === null);
  words.textContent = origin(found) + (unread ? " These weights have lost the heads that would read the first layers' scores." : "");
  byId("facts").replaceChildren(table, words);
  if (!found.drops) return;
  const cost = (place) => found.drops[place].toFixed(3), tried = document.createElement("p");
  tried.textContent = `Hiding what it looked at costs ${cost("looked at")} of its score; hiding as much elsewhere ${cost("elsewhere")}, in the middle of the box ${cost("inside the box")}.`;
  byId("facts").append(tried);
}

function origin(found) {
  const from = found.proposal, query = `Query ${found.query + 1}. `;
  if (!from) return query + "Its start was learned, and is the same for every picture.";
  const level = picture().levels[from.level], size = Math.round(picture().width / level.columns);
  const said = from.name === null ? `an object with ${from.score.toFixed(3)}` : `${from.name} with ${from.score.toFixed(3)}`;
  return `${query}Proposed by row ${from.row + 1}, column ${from.column + 1} of level ${from.level + 1} (cells of ${size} pixels), ` +
    `the ${from.rank ? ordinal(from.rank + 1) + " " : ""}best position of the picture, which took it for ${said}` +
    (from.box ? "." : " and, lying on the border, proposed no box.");
}

function ordinal(n) {
  const rest = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  return `${n}${{ 1: "st", 2: "nd", 3: "rd" }[rest] || "th"}`;
}

function sides(found) {
  const parent = byId("sides"); parent.replaceChildren();
  if (!found.sides) return;
  const { order, positions, probabilities, expected, spread } = found.sides;
  const layer = Math.min(state.layer ?? expected.length - 1, expected.length - 1);
  order.forEach((name, side) => {
    const places = positions[layer][side], chances = probabilities[layer][side], middle = expected[layer][side];
    const reach = Math.max(4 * spread[layer][side], 6), left = middle - reach;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none");
    const most = Math.max(...chances);
    places.forEach((place, i) => {
      const x = 100 * (place - left) / (2 * reach);
      if (x < 0 || x > 100) return;
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const high = 38 * chances[i] / most;
      for (const [key, value] of Object.entries({ x: x - 1, y: 40 - high, width: 2, height: high })) rect.setAttribute(key, value);
      svg.append(rect);
    });
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    for (const [key, value] of Object.entries({ x1: 50, x2: 50, y1: 0, y2: 40 })) line.setAttribute(key, value);
    svg.append(line);
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = `${name}: ${middle.toFixed(1)} ± ${spread[layer][side].toFixed(1)} px`;
    figure.append(svg, caption); parent.append(figure);
  });
}

function legend(found) {
  const parent = byId("legend"); parent.replaceChildren();
  if (!found) return;
  const which = (what, value) => (value === null ? `all ${what}s` : `${what} ${value + 1}`);
  parent.append(`${found.name}: ${which("layer", state.layer)}, ${which("head", state.head)}.`);
  if (found.points) picture().levels.forEach((level, i) => {
    const dot = document.createElement("i"); dot.style.background = data.levelColours[i % data.levelColours.length];
    parent.append(dot, `cells of ${Math.round(picture().width / level.columns)} px`);
  });
}

function drawPictures() {
  rebuilt("pictures", (parent) => {
    if (data.pictures.length < 2) return;
    data.pictures.forEach((each, i) => {
      const element = document.createElement("button"), image = document.createElement("img"), words = document.createElement("span");
      element.type = "button"; element.setAttribute("aria-current", i === state.picture);
      image.src = each.image; image.alt = ""; words.textContent = each.name.length > 17 ? `…${each.name.slice(-16)}` : each.name; element.title = each.name;
      element.append(image, words); element.addEventListener("click", () => show(i));
      parent.append(element);
    });
  });
}

/* ---- what happens ---- */

function drawMap() {
  const { levels, detections, encoder } = picture(), canvas = byId("heat");
  if (state.asking && encoder) {
    canvas.hidden = !state.asked;
    if (!state.asked) return;
    const grid = new Float32Array(encoder.rows * encoder.columns), { rows, largest } = shares(encoder.weights);
    const r = Math.min(encoder.rows - 1, Math.floor(state.asked[1] / picture().height * encoder.rows));
    const c = Math.min(encoder.columns - 1, Math.floor(state.asked[0] / picture().width * encoder.columns));
    const row = r * encoder.width + c;
    addRow(grid, encoder, rows, row * encoder.height * encoder.width, largest[row] / 255);
    return paint([grid], [encoder]);
  }
  canvas.hidden = !state.map || !detections.length;
  if (!canvas.hidden) paint(cellsOf(detection()), levels);
}

function drawAll() { drawMap(); drawMarks(); drawPanels(); remember(); }
function change(part) { Object.assign(state, part); drawAll(); }
function select(i) { change({ detection: i, hovered: null, asking: false }); }
function hover(i) {
  if (state.asking || i === state.hovered) return;
  state.hovered = i === state.detection ? null : i;
  drawMap(); drawMarks();
}
function toggleLevel(i) { if (!state.hidden.delete(i)) state.hidden.add(i); drawAll(); }

function show(i) {
  Object.assign(state, { picture: i, detection: 0, hovered: null, asking: false, asked: null });
  const image = byId("image"), { width, height, name, detections } = picture();
  image.src = picture().image; image.alt = `${name}: ${detections.map((each) => each.name).join(", ") || "nothing found"}`;
  image.width = width; image.height = height;
  byId("stage").style.maxWidth = `min(100%, calc(82vh * ${width / height}))`;
  byId("stage").classList.remove("asking");
  drawPictures(); drawAll();
}

function remember() {
  const part = (letter, value) => (value === null ? "" : letter + (value + 1));
  history.replaceState(null, "", `#p${state.picture + 1}d${state.detection + 1}${part("l", state.layer)}${part("h", state.head)}`);
}

function recall() {
  const said = /^#p(\d+)(?:d(\d+))?(?:l(\d+))?(?:h(\d+))?$/.exec(location.hash);
  if (!said || said[1] < 1 || said[1] > data.pictures.length) return show(0);
  show(said[1] - 1);
  const within = (text, count) => (text && text >= 1 && text <= count ? text - 1 : null);
  const { detections, layers, heads } = picture();
  change({ detection: within(said[2], detections.length) ?? 0, layer: within(said[3], layers), head: within(said[4], heads) });
}

function ask(event) {
  if (!state.asking) return;
  const frame = byId("stage").getBoundingClientRect(), { width, height } = picture();
  const inside = (value) => Math.min(Math.max(value, 0), 0.999999);
  state.asked = [inside((event.clientX - frame.left) / frame.width) * width, inside((event.clientY - frame.top) / frame.height) * height];
  drawMap(); drawMarks();
}

function around(value, step, count) { return count === 0 ? null : (value === null ? (step > 0 ? 0 : count - 1) : value + step < 0 || value + step >= count ? null : value + step); }

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { detections, layers, heads } = picture(), count = detections.length;
  const acts = {
    ArrowDown: () => count && select((state.detection + 1) % count),
    ArrowUp: () => count && select((state.detection + count - 1) % count),
    ArrowRight: () => change({ layer: around(state.layer, 1, layers) }),
    ArrowLeft: () => change({ layer: around(state.layer, -1, layers) }),
    "]": () => change({ head: around(state.head, 1, heads) }),
    "[": () => change({ head: around(state.head, -1, heads) }),
    m: () => change({ map: !state.map }),
    p: () => change({ points: !state.points }),
    b: () => change({ steps: !state.steps }),
    n: () => show((state.picture + 1) % data.pictures.length),
    Escape: () => toggleAsking(false),
  };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
}

function toggleAsking(asking) {
  const middle = [picture().width / 2, picture().height / 2];
  byId("stage").classList.toggle("asking", asking);
  change({ asking, asked: asking ? middle : null });
}

const total = data.pictures.reduce((sum, each) => sum + each.detections.length, 0);
byId("title").textContent = document.title;
byId("lead").textContent = `${data.pictures.length} picture${data.pictures.length === 1 ? "" : "s"}, ${total} detection${total === 1 ? "" : "s"}. Choose a box to see where its query looked, layer by layer and head by head.`;
byId("tried").textContent = data.faithfulness || "";
byId("tried-part").hidden = !data.faithfulness;
byId("stage").addEventListener("pointermove", ask);
byId("stage").addEventListener("click", ask);
byId("encoder").addEventListener("click", () => toggleAsking(!state.asking));
document.addEventListener("keydown", key);
addEventListener("resize", () => drawMarks());
addEventListener("hashchange", recall);
recall();
