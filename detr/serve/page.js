"use strict";

const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let picture = null; // the file that is shown
let asked = 0; // requests so far: an answer to an older one is too late

async function answer(path, body) {
  let response;
  try {
    response = await fetch(path, { method: "POST", body });
  } catch {
    throw new Error("the server can't be reached");
  }
  if (response.ok) return response;
  const wait = response.headers.get("Retry-After");
  const tree = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  throw new Error(tree.error + (wait ? ` (in ${wait} s)` : ""));
}

const colour = (index) => `hsl(${(index * 137.5) % 360} 85% 50%)`;

function say(words, wrong = false) {
  at("said").textContent = words;
  at("said").classList.toggle("wrong", wrong);
}

async function look() {
  if (!picture) return;
  const mine = ++asked;
  say("looking …");
  try {
    const began = performance.now();
    const found = await (await answer(`predict?conf=${at("conf").value}`, picture)).json();
    if (mine !== asked) return;
    show(found);
    const count = found.detections.length;
    say(`${count || "no"} object${count === 1 ? "" : "s"} in ${Math.round(performance.now() - began)} ms`);
  } catch (problem) {
    if (mine !== asked) return;
    at("result").hidden = true;
    say(problem.message, true);
  }
}

function show(found) {
  const boxes = at("boxes"), list = at("list");
  boxes.setAttribute("viewBox", `0 0 ${found.width} ${found.height}`);
  boxes.replaceChildren();
  list.replaceChildren();
  const all = found.detections.map((one, index) => ({ one, index }));
  const rows = new Map();
  for (const { one, index } of all) {
    const row = document.createElement("button");
    const sign = document.createElement("i"), name = document.createElement("span"), score = document.createElement("b");
    sign.style.background = colour(one.class);
    name.textContent = one.name;
    score.textContent = one.confidence.toFixed(2);
    row.type = "button";
    row.append(sign, name, score);
    row.addEventListener("click", () => explain(one, index));
    const item = document.createElement("li");
    item.append(row);
    list.append(item);
    rows.set(index, row);
  }
  // Large boxes first, so that small ones lie above them and can be clicked; of boxes about as large the best on top.
  const size = ({ one }) => Math.round(Math.log2(1 + (one.box.x2 - one.box.x1) * (one.box.y2 - one.box.y1)));
  for (const { one, index } of all.sort((a, b) => size(b) - size(a) || a.one.confidence - b.one.confidence)) {
    const group = document.createElementNS(SVG, "g"), rect = document.createElementNS(SVG, "rect");
    const title = document.createElementNS(SVG, "title");
    title.textContent = `${one.name} ${one.confidence.toFixed(2)}`;
    for (const [key, value] of Object.entries({ x: one.box.x1, y: one.box.y1,
      width: one.box.x2 - one.box.x1, height: one.box.y2 - one.box.y1, stroke: colour(one.class) })) rect.setAttribute(key, value);
    group.append(title, rect);
    group.setAttribute("tabindex", "0");
    group.setAttribute("role", "button");
    group.setAttribute("aria-label", `Where the model looked for ${title.textContent}`);
    group.addEventListener("click", () => explain(one, index));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); explain(one, index); }
    });
    const row = rows.get(index);
    for (const [from, to] of [[group, row], [row, group]]) {
      from.addEventListener("mouseenter", () => to.classList.add("lit"));
      from.addEventListener("mouseleave", () => to.classList.remove("lit"));
    }
    boxes.append(group);
  }
  at("result").hidden = false;
}

async function explain(one, index) {
  const mine = ++asked;
  say(`where did it look for the ${one.name}? …`);
  try {
    const response = await answer(`explain?conf=${at("conf").value}&index=${index}`, picture);
    const blob = await response.blob();
    if (mine !== asked) return;
    const image = at("why-picture");
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    at("why-title").textContent = image.alt = `Where the model looked for the ${one.name} (${one.confidence.toFixed(2)})`;
    await image.decode();
    at("why").showModal();
    say("");
  } catch (problem) {
    if (mine === asked) say(problem.message, true);
  }
}

function take(file) {
  if (!file) return;
  picture = file;
  URL.revokeObjectURL(at("picture").src);
  at("picture").src = URL.createObjectURL(file);
  look();
}

at("file").addEventListener("change", (event) => take(event.target.files[0]));
at("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); at("file").click(); }
});
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
at("conf").addEventListener("input", () => { at("conf-shown").value = Number(at("conf").value).toFixed(2); });
at("conf").addEventListener("change", look);

fetch("model").then((response) => response.json()).then((model) => {
  const names = Object.values(model.names), some = names.slice(0, 6).join(", ");
  at("model").textContent = `${model.weights}: ${names.length} classes (${some}${names.length > 6 ? ", …" : ""})`;
}).catch(() => say("the server can't be reached", true));
