"use strict";
// Sorting and filtering of tables. Without it the page shows the same, in the order of execution.
for (const section of document.querySelectorAll("section.sortable")) {
  const body = section.querySelector("tbody");
  const rows = [...body.rows];
  const search = section.querySelector("input[type=search]");
  const kind = section.querySelector("select");
  const count = section.querySelector("output");
  const headers = [...section.querySelectorAll("thead th")];

  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = (kind.value !== "" && !row.dataset.kind.split(" ").includes(kind.value)) ||
        !row.dataset.text.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown + " of " + rows.length + " " + section.dataset.noun;
  };

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };

  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      // Numbers start with the largest, names with the first.
      const first = header.classList.contains("number") ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      const order = header.getAttribute("aria-sort") === first ? second : first;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const left = key(a, column), right = key(b, column);
        return sign * (typeof left === "number" ? left - right : left.localeCompare(right));
      });
      body.append(...rows);
    });
  });
  search.addEventListener("input", filter);
  kind.addEventListener("input", filter);
  section.querySelector(".controls").hidden = false;
  filter();
}
