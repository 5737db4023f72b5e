// The panels beside the picture.
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
    if (picture().asked) parent.appendChild(document.createElement("p")).textContent = `At the dotted place: ${picture().asked.said}. The queries that came nearest:`;
    detections.forEach((each, i) => {
      const element = button(parent, "", i === state.detection, () => select(i), each.colour);
      element.lastChild.remove();
      for (const words of [each.name, each.confidence.toFixed(3)]) element.appendChild(document.createElement("span")).textContent = words;
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
  rebuilt("draw", (parent) => kinds.filter(([kind]) => (kind !== "points" || found?.points) && (kind !== "origin" || found?.start))
    .forEach(([kind, words]) => button(parent, words, state[kind], () => change({ [kind]: !state[kind] }))));
  rebuilt("through", (parent) => {
    if (!picture().encoder?.sources) return;
    button(parent, "where it came from", !state.direct, () => change({ direct: false }));
    button(parent, "positions looked at", state.direct, () => change({ direct: true }));
  });
  byId("through").parentElement.hidden = !picture().encoder?.sources;
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
  const wide = Math.min(a.x2, b.x2) - Math.max(a.x1, b.x1), high = Math.min(a.y2, b.y2) - Math.max(a.y1, b.y1);
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
    const same = found.proposal.class === found.class;
    row("encoder", same || found.proposal.class === null ? found.proposal.confidence : null, found.proposal.box, false);
  }
  found.layers.forEach((step, i) => row(`layer ${i + 1}`, step.confidence, step.box, i === state.layer));
  const words = document.createElement("p");
  const unread = found.layers.some((step) => step.confidence === null);
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
  const said = from.name === null ? `an object with ${from.confidence.toFixed(3)}` : `${from.name} with ${from.confidence.toFixed(3)}`;
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
  const { order, positions, probabilities, expected, interval } = found.sides;
  const layer = Math.min(state.layer ?? expected.length - 1, expected.length - 1);
  order.forEach((name, side) => {
    const places = positions[layer][side], chances = probabilities[layer][side], middle = expected[layer][side];
    const [low, high] = interval[layer][side], reach = Math.max(1.6 * (middle - low), 1.6 * (high - middle), 4);
    const across = (place) => 50 + 50 * (place - middle) / reach;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none");
    const most = Math.max(...chances);
    const add = (kind, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      svg.append(element);
    };
    add("rect", { class: "interval", x: across(low), y: 0, width: across(high) - across(low), height: 40 });
    places.forEach((place, i) => {
      const x = across(place), tall = 38 * chances[i] / most;
      if (x >= 0 && x <= 100) add("rect", { x: x - 1, y: 40 - tall, width: 2, height: tall });
    });
    add("line", { x1: 50, x2: 50, y1: 0, y2: 40 });
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = `${name} ${middle.toFixed(1)} px: 80 % from ${low.toFixed(1)} to ${high.toFixed(1)}`;
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
