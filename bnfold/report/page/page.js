"use strict";
// The page is complete without this script, which adds filtering, sorting, and open tables in print.
(() => {
  const table = document.getElementById("sites-table");
  if (table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const query = document.getElementById("query");
    const buttons = [...document.querySelectorAll("#filter button")];
    const shown = document.getElementById("shown");
    let status = "";

    const filter = () => {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const fits = (!status || row.dataset.status === status) && words.every((word) => text.get(row).includes(word));
        row.hidden = !fits;
        count += fits;
      }
      shown.textContent = count === rows.length ? "" : `${count} of ${rows.length} shown`;
    };
    const choose = (button) => {
      status = button.dataset.status;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      filter();
    };
    const sort = (heading) => {
      const column = heading.cellIndex;
      const order = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const value = (row) => row.cells[column].textContent.trim();
      const compare = heading.dataset.sort === "number"
        ? (a, b) => value(a) - value(b)
        : (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
      body.append(...[...rows].sort((a, b) => order * compare(a, b)));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
    };

    query.addEventListener("input", filter);
    query.form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of buttons) button.addEventListener("click", () => choose(button));
    for (const heading of table.tHead.querySelectorAll("[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(heading));
    }
    query.form.hidden = false;
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
})();
