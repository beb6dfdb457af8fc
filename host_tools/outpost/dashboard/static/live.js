// Keeps the page that is open up to date: asks for it again with the version it has, and puts in
// place what is new. Sorting and finding are here, too.
"use strict";

const EVERY_MS = 1000, PATIENCE_MS = 10000;
const all = (selector, top = document) => [...top.querySelectorAll(selector)];

// --- what is new ---

async function refresh() {
  const body = document.body;
  const answer = await fetch(location.href, {
    headers: {"X-Have": body.dataset.version, "Accept": "text/html"},
    signal: AbortSignal.timeout(PATIENCE_MS)});
  if (answer.status === 204) return;
  if (answer.redirected) return location.reload();  // the token is another now
  if (!answer.ok) throw new Error(answer.status);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (shape(fresh) !== shape(document)) return location.reload();  // the first node, say
  for (const now of all("[data-live]", fresh)) {
    const before = document.getElementById(now.id);
    if (!before) {
      if (now.tagName === "TR") document.querySelector("#fleet tbody").append(now);
    } else if (before.querySelector("input:focus:not([type=hidden])")) {
      continue;  // somebody is writing there
    } else if (kept(before) !== kept(now)) {
      for (const one of all("details[data-keep]", before)) {  // as open as it was left
        const same = now.querySelector(`details[data-keep="${one.dataset.keep}"]`);
        if (same) same.open = one.open;
      }
      before.replaceWith(now);
      now.classList.add("fresh");
    }
  }
  body.dataset.version = fresh.body.dataset.version;
  dress();
}

const shape = (page) => all("[data-shape]", page).map((one) => one.dataset.shape).join();

// what the page itself has changed since it came doesn't count
const kept = (element) => (element.source ??= element.outerHTML);

async function live() {
  const link = document.getElementById("link");
  for (;;) {
    await new Promise((go) => setTimeout(go, EVERY_MS));
    if (document.hidden || document.body.dataset.version === undefined) continue;
    try {
      await refresh();
      link.textContent = "";
    } catch {
      link.textContent = "the gateway doesn't answer";
    }
  }
}

// --- times that pass ---

function ages() {
  for (const one of all("time[data-t]")) {
    const s = Date.now() / 1000 - one.dataset.t;
    const [size, unit] = s >= 129600 ? [86400, "d"] : s >= 5400 ? [3600, "h"]
      : s >= 60 ? [60, "min"] : [1, "s"];
    const told = `${Math.max(0, Math.round(s / size))} ${unit}`;
    if (one.textContent !== told) one.textContent = told;
  }
}

// --- the fleet's table ---

const look = JSON.parse(sessionStorage.getItem("look") ?? "{}");  // {sort, down, level, find}

function arrange() {
  const table = document.getElementById("fleet");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows];
  const key = (row, column) => {
    const value = row.cells[column].dataset.v;
    return value === "" || isNaN(value) ? value : Number(value);
  };
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const column = look.sort ?? 1, sign = (look.down ?? true) ? -1 : 1;
  const keyed = rows.map((row) => [key(row, column), key(row, 1), key(row, 4), key(row, 0), row]);
  keyed.sort((a, b) => sign * compare(a[0], b[0]) || compare(b[1], a[1]) || compare(a[2], b[2])
    || compare(a[3], b[3]));
  if (keyed.some(([, , , , row], i) => row !== rows[i])) body.append(...keyed.map((one) => one[4]));
  const words = (look.find ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = words.length ? row.textContent.toLowerCase() : "";
    row.hidden = Boolean(look.level && row.dataset.level !== look.level)
      || !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("none").hidden = shown > 0;
  all("th", table).forEach((head, i) => {
    head.ariaSort = i === column ? (sign < 0 ? "descending" : "ascending") : null;
  });
  for (const chip of all("[data-filter]")) chip.ariaPressed = chip.dataset.filter === (look.level ?? "");
  sessionStorage.setItem("look", JSON.stringify(look));
}

document.addEventListener("click", (event) => {
  const head = event.target.closest("th[data-sort]"), chip = event.target.closest("[data-filter]");
  if (head) {
    const first = head.dataset.sort === "down";
    look.down = head.cellIndex === (look.sort ?? 1) ? !(look.down ?? true) : first;
    look.sort = head.cellIndex;
    arrange();
  } else if (chip) {
    look.level = chip.dataset.filter;
    arrange();
  }
});

document.addEventListener("input", (event) => {
  if (event.target.id === "find") {
    look.find = event.target.value;
    arrange();
  }
});

// --- forms that don't leave the page ---

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-stay]");
  if (!form) return;
  event.preventDefault();
  const given = new URLSearchParams(new FormData(form, event.submitter));
  for (const button of all("button", form)) button.disabled = true;
  try {
    await fetch(form.action, {method: "POST", body: given, redirect: "manual"});
    await refresh();
  } finally {
    for (const button of all("button", form)) button.disabled = false;
  }
});

function dress() {
  ages();
  arrange();
}

for (const one of all("[data-live]")) kept(one);
const find = document.getElementById("find");
if (find && look.find) find.value = look.find;
dress();
setInterval(ages, 5000);
live();
