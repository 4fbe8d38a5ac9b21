"use strict";
// Tells in words what the cell of a confusion matrix counts, under the pointer and with the arrow keys.
for (const table of document.querySelectorAll("table.matrix")) {
  const told = table.closest("figure").querySelector(".told");
  const names = [...table.tHead.querySelectorAll("th")].map((head) => head.textContent);
  const tell = (cell) => {
    const row = cell.parentElement, n = Number(cell.dataset.n), total = Number(row.dataset.total);
    const truth = names[row.sectionRowIndex], said = names[cell.cellIndex - 1];
    const share = total ? ` (${(100 * n / total).toFixed(1)} %)` : "";
    told.textContent = truth === said
      ? `Of ${total} images of ${truth}, ${n}${share} were called so.`
      : `Of ${total} images of ${truth}, ${n}${share} were called ${said}.`;
  };
  const of = (event) => event.target.closest("tbody td");
  for (const kind of ["pointerover", "focusin", "click"])
    table.addEventListener(kind, (event) => { if (of(event)) tell(of(event)); });
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  table.addEventListener("keydown", (event) => {
    const cell = of(event), step = steps[event.key];
    if (!cell || !step) return;
    event.preventDefault();
    const row = table.tBodies[0].rows[cell.parentElement.sectionRowIndex + step[0]];
    const next = row && cell.cellIndex + step[1] > 0 ? row.cells[cell.cellIndex + step[1]] : null;
    if (!next) return;
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
// Sorts a table by the column whose heading is clicked: first the smallest, then the largest on top.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head) => {
    const column = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => column ? value(a) - value(b) : value(a).localeCompare(value(b));
    const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? 1 : -1) * compare(a, b));
    table.tBodies[0].append(...rows);
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  };
  for (const head of heads) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head); });
  }
}
