// What lies over the picture: boxes, points, the place that a query began at.
const MOST_POINTS = 900;

function mark(kind, attributes, title) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (title) element.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "title")).textContent = title;
  return byId("marks").appendChild(element);
}

function box({ x1, y1, x2, y2 }, attributes, title) {
  return mark("rect", { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), ...attributes }, title);
}

function drawMarks() {
  const { width, height, detections } = picture(), svg = byId("marks");
  const focused = document.activeElement?.dataset?.box;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const pixel = width / Math.max(1, byId("stage").clientWidth), current = state.hovered ?? state.detection;
  const order = detections.map((_, i) => i).sort((a, b) => area(detections[b].box) - area(detections[a].box));
  for (const i of order) drawBox(detections[i], i, i === current, pixel);
  if (picture().asked) box(picture().asked.box, { class: "place", "stroke-width": 2 }, "the place that was asked about");
  if (state.asking) { if (state.asked) cross(state.asked, 9 * pixel); }
  else if (detections.length) drawOf(detection(), pixel);
  if (focused !== undefined) svg.querySelector(`[data-box="${focused}"]`)?.focus();
}

const area = ({ x1, y1, x2, y2 }) => (x2 - x1) * (y2 - y1);

function drawBox(found, i, isCurrent, pixel) {
  const words = `${found.name} ${found.confidence.toFixed(2)}`;
  if (isCurrent) box(found.box, { class: "under", "stroke-width": 6 });
  const element = box(found.box, { class: "box", stroke: found.colour, "stroke-width": isCurrent ? 3 : 1.6,
    "stroke-opacity": isCurrent ? 1 : 0.75, tabindex: 0, role: "button", "aria-label": words,
    "aria-pressed": isCurrent, "data-box": i });
  element.addEventListener("click", () => select(i));
  element.addEventListener("mouseenter", () => hover(i));
  element.addEventListener("mouseleave", () => hover(null));
  element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(i); } });
  if (!isCurrent) return;
  const y = found.box.y1 - 5 * pixel > 12 * pixel ? found.box.y1 - 5 * pixel : found.box.y1 + 15 * pixel;
  const tag = mark("text", { class: "tag", x: 0, y: 0, transform: `translate(${Math.max(2 * pixel, found.box.x1 + 2 * pixel)} ${y}) scale(${pixel})` });
  tag.textContent = words;
}

function drawOf(found, pixel) {
  if (state.steps)
    found.layers.forEach((step, i) => step.box && box(step.box, { class: "step", "stroke-width": 1.4, "stroke-opacity": 0.35 + 0.6 * (i + 1) / found.layers.length }, `after layer ${i + 1}`));
  if (state.origin && found.start?.x1 !== undefined) box(found.start, { class: "step", "stroke-width": 1.6 }, "what the first layer began with");
  if (state.points && found.points) drawPoints(found, pixel);
  if (state.origin && found.proposal) cross(found.proposal.xy, 9 * pixel, "the position that proposed the query");
  if (state.origin && found.start?.length === 2) cross(found.start, 9 * pixel, "the point that the query looks from");
}

function drawPoints(found, pixel) {
  const points = chosenPoints(found).sort((a, b) => a.weight - b.weight).slice(-MOST_POINTS);
  const most = points.length ? points[points.length - 1].weight : 1;
  const small = pixel * Math.min(1, Math.max(0.5, byId("stage").clientWidth / 640));
  const kind = state.hovered === null ? "point" : "point passing";  // else they would come between the mouse and its box
  for (const { x, y, weight, level, layer, head } of points) {
    const share = weight / most;
    const circle = mark("circle", { class: kind, cx: x, cy: y, r: small * (1.2 + 5.3 * Math.sqrt(share)),
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
