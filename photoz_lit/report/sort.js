// Tables sort by a click, or Enter, on a heading; without this script they stay as they were written.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    return column === 0 ? text : Number(text === "nan" ? NaN : text);
  };
  const compare = (a, b) => typeof a === "string" ? a.localeCompare(b) : a - b;
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      // What was not measured stays last, whichever way the rest is sorted.
      const last = ([v]) => Number.isNaN(v);
      rows.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : sign * compare(a[0], b[0])));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
