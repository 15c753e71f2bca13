"use strict";
// Draws the report's curves. A curve is one quantity (a column of the table under the chart) of one model (a row).

const { models } = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const QUANTITIES = {
  valid: { label: "valid", width: 2, dash: [] },
  train: { label: "train", width: 1.5, dash: [6, 4], hidden: true },
  course_report: { label: "course report, valid", width: 1.5, dash: [2, 4] },
  before: { label: "valid before", width: 1.5, dash: [10, 3, 2, 3] },
  rate: { label: "learning rate", width: 2, dash: [] },
};
const ROUND = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
const MOST_MARKS = 8;

const shown = { models: models.map(() => true), quantities: {} };
for (const [key, { hidden }] of Object.entries(QUANTITIES)) shown.quantities[key] = !hidden;
let charts = [];
let epochs = [];

const colour = (model) => model.colors[dark.matches ? 1 : 0];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const has = (key) => models.some((model) => model[key] !== undefined && model[key] !== null);
const visible = (row, key) => shown.models[row] && shown.quantities[key];

function element(tag, parent, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

/** A quantity of a model by epoch; the course report's is of no epoch, and the same at each. */
function values(model, key) {
  const given = model[key] ?? [];
  return epochs.map((_, index) => (Array.isArray(given) ? (given[index] ?? null) : given));
}

/** The limits of what is shown, leaving out the first tenth of the epochs, which starts far above the others. */
function limits(chart, left, right) {
  const from = Math.max(left ?? 1, 1 + Math.floor(epochs.length / 10));
  const inside = chart.series.slice(1).filter((series) => series.show).flatMap((series) =>
    chart.data[series.column].filter((value, index) => value !== null && epochs[index] >= from && epochs[index] <= right));
  const [low, high] = inside.length ? [Math.min(...inside), Math.max(...inside)] : [10, 1000];
  const margin = Math.max(high / low, 1.1) ** 0.08;
  return [low / margin, high * margin];
}

/** At most so many round numbers between two limits. */
function marks(chart, axis, low, high) {
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(power);
  for (const digits of [ROUND, [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1]]) {
    const found = powers.flatMap((power) => digits.map((digit) => +`${digit}e${power}`));
    const inside = found.filter((mark) => low <= mark && mark <= high);
    if (inside.length === 0) return [low, high].map((limit) => +limit.toPrecision(4));
    if (inside.length <= MOST_MARKS) return inside;
  }
  const step = Math.ceil(powers.length / MOST_MARKS);
  return powers.filter((power) => power % step === 0).map((power) => +`1e${power}`);
}

function draw(figure, keys, scale, height) {
  const axis = { stroke: () => css("--muted"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { show: false } };
  const series = [{}];
  const data = [epochs];
  for (const key of keys.filter(has)) {
    models.forEach((model, row) => {
      data.push(values(model, key));
      series.push({
        row, key,
        column: series.length,
        stroke: () => colour(model),
        width: QUANTITIES[key].width,
        dash: QUANTITIES[key].dash,
        show: visible(row, key),
        points: {
          size: 8,
          fill: () => colour(model),
          show: key === "valid" || epochs.length === 1, // which is no line
          filter: (_, __, wanted) => (wanted ? [model.best - 1] : null),
        },
      });
    });
  }
  const chart = new uPlot({
    width: figure.clientWidth, height, series,
    scales: { x: { time: false, range: (_, left, right) => (left === right ? [left - 1, right + 1] : [left, right]) }, y: scale },
    axes: [{ ...axis, label: "epoch", incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
           { ...axis, label: figure.dataset.label, size: 60, ...(scale.distr === 3 && { splits: marks, filter: (_, splits) => splits }) }],
    cursor: { sync: { key: "epoch" }, drag: { x: true, y: false } },
    hooks: { setCursor: [(chart) => tell(chart.cursor.idx)] },
  }, data, figure);
  charts.push(chart);
}

/** The table that tells the figures at the epoch under the cursor, and switches curves on and off. */
function buildTable() {
  const table = document.getElementById("figures");
  table.replaceChildren();
  const head = element("tr", element("thead", table));
  element("th", head).id = "epoch";
  const keys = Object.keys(QUANTITIES).filter(has);
  for (const key of keys) {
    const toggled = key === "rate" ? null : (on) => { shown.quantities[key] = on; };
    toggle(element("th", head), QUANTITIES[key].label, shown.quantities[key], toggled);
  }
  const body = element("tbody", table);
  models.forEach((model, row) => {
    const line = element("tr", body);
    const label = toggle(element("th", line), model.name, shown.models[row], (on) => { shown.models[row] = on; });
    const swatch = element("span", label);
    swatch.className = "swatch";
    swatch.style.background = colour(model);
    label.firstChild.after(swatch);
    for (const key of keys) element("td", line).dataset.key = key;
  });
  tell(null);
}

function toggle(cell, text, checked, toggled) {
  const label = element("label", cell);
  if (toggled) {
    const box = element("input", label);
    Object.assign(box, { type: "checkbox", checked });
    box.addEventListener("change", () => { toggled(box.checked); apply(); });
  }
  label.append(text);
  return label;
}

function apply() {
  for (const chart of charts) {
    chart.batch(() => chart.series.forEach((series, index) => {
      if (index > 0) chart.setSeries(index, { show: visible(series.row, series.key) });
    }));
  }
}

/** Show the figures at an epoch, given by its index; without one, each model's at its best epoch. */
function tell(index) {
  document.getElementById("epoch").textContent = index === null ? "at its best epoch" : `epoch ${epochs[index]}`;
  document.querySelectorAll("#figures tbody tr").forEach((line, row) => {
    for (const cell of line.querySelectorAll("td")) {
      const value = values(models[row], cell.dataset.key)[index ?? models[row].best - 1];
      cell.textContent = value === null ? "-" : cell.dataset.key === "rate" ? +value.toPrecision(3) : value.toFixed(2);
    }
  });
}

function drawAll() {
  charts.forEach((chart) => chart.destroy());
  charts = [];
  const longest = Math.max(...models.flatMap((model) => [model.valid.length, model.before?.length ?? 0]));
  epochs = Array.from({ length: longest }, (_, index) => index + 1);
  buildTable();
  const perplexity = document.getElementById("comparison");
  draw(perplexity, ["valid", "train", "course_report", "before"], { distr: 3, range: (chart) => {
    const { min, max } = chart.scales.x;
    return limits(chart, min, max ?? Infinity);
  } }, Math.min(460, 260 + perplexity.clientWidth / 5));
  draw(document.getElementById("learning_rates"), ["rate"], { range: (_, low, high) => [0, (high || 1) * 1.1] }, 180);
}

/** Read the valid perplexities of another commit's histories.csv into the models of the same names. */
async function layOver(file, said) {
  const [header, ...lines] = (await file.text()).trim().split(/\r?\n/).map((line) => line.split(","));
  const [model, valid] = ["model", "valid_perplexity"].map((name) => header.indexOf(name));
  if (model < 0 || valid < 0) {
    said.textContent = `${file.name} has no columns model and valid_perplexity: choose a histories.csv`;
    return;
  }
  for (const one of models) {
    const found = lines.filter((line) => line[model] === one.name).map((line) => Number(line[valid]));
    one.before = found.length ? found : undefined;
  }
  const of = models.filter((one) => one.before).map((one) => one.name);
  said.textContent = of.length ? `${file.name}: ${of.join(", ")}` : `${file.name} has none of these models`;
  drawAll();
}

drawAll();
dark.addEventListener("change", drawAll);
new ResizeObserver(() => charts.forEach((chart) => {
  if (chart.root.parentElement.clientWidth !== chart.width)
    chart.setSize({ width: chart.root.parentElement.clientWidth, height: chart.height });
})).observe(document.querySelector("main"));
document.getElementById("before").addEventListener("change", (event) => {
  if (event.target.files.length) layOver(event.target.files[0], document.getElementById("said"));
});
