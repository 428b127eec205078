"use strict";
(() => {
  const data = JSON.parse(document.getElementById("more").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const UNITS = {ms: 1, s: 1e3, min: 6e4, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, PB: 1e15};

  // Returns a cell's text as a number to sort by; null if it is not known.
  const parse = (text) => {
    if (text === "new") return Infinity;
    const found = /^(▼ )?[▲±<]? ?([\d,.]+) ?(\w+)?/.exec(text);
    if (!found) return null;
    return (found[1] ? -1 : 1) * Number(found[2].replaceAll(",", "")) * (UNITS[found[3]] || 1);
  };
  // Puts back what the page has left out of a cell: the direction of a change, and the unit.
  const unpack = (cell, column) => {
    if (!column || !/^-?[\d,.]+$/.test(cell)) return cell;
    if (column === 1) return cell[0] === "-" ? `▼ ${cell.slice(1)} %` : `▲ ${cell} %`;
    return cell + (column < 4 ? " %" : " ms");
  };
  const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const drawn = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  // Makes a row as the page has them. Text is set as text: a route or a client is never read as HTML.
  const makeRow = ([method, name, named], most, cells) => {
    const row = element("tr", "");
    const head = element("th", "", "name");
    head.scope = "row";
    if (named) {
      const svg = drawn("svg", {class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": true});
      svg.append(drawn("path", {d: `M0 0h${Math.round(parse(cells[0]) * 100 / most)}v1H0z`}));
      head.append(svg);
    }
    if (method) head.append(element("b", method, "method"), " ");
    head.append(element("bdi", name, named ? "" : "more"));
    row.append(head, ...cells.map((cell) => element("td", cell)));
    return row;
  };

  const enhance = (tools) => {
    const {kind, range} = tools.dataset;
    const {names, ranges} = data[kind];
    const table = document.getElementById(`${kind}-${range}`);
    const body = table.tBodies[0];
    const first = [...body.rows];
    const isOther = (row) => row.querySelector(".more") !== null;
    const columns = ranges[range].map((text, column) => text.split("|").map((cell) => unpack(cell, column)));
    const places = columns.length ? [...names.keys()].filter((place) => columns[0][place]) : [];
    const most = first.length ? parse(first[0].cells[1].textContent) : 0;
    // The page's last row sums up those that it leaves out; here they take its place.
    const kept = places.length ? first.filter((row) => !isOther(row)) : first;
    const rows = [...kept, ...places.map((place) => makeRow(names[place], most, columns.map((each) => each[place])))];
    const state = {column: 1, down: true, all: false};
    const heads = [...table.tHead.rows[0].cells];

    const search = element("input", "");
    search.type = "search";
    search.placeholder = `Filter ${kind}`;
    search.setAttribute("aria-label", search.placeholder);
    const status = element("span", "");
    status.setAttribute("role", "status");
    const more = element("button", "");
    const valueOf = (row) => {
      const text = row.cells[state.column].textContent;
      return state.column ? parse(text) : text.toLowerCase();
    };
    const show = () => {
      const wanted = search.value.toLowerCase();
      const found = rows.filter((row) => row.cells[0].textContent.toLowerCase().includes(wanted))
        .map((row) => [row, valueOf(row), isOther(row)]);
      const sign = state.down ? -1 : 1;
      found.sort(([, a, x], [, b, y]) => x - y || (a === null) - (b === null) || (a < b ? -sign : a > b ? sign : 0));
      const limit = state.all ? found.length : kept.length;
      body.replaceChildren(...found.slice(0, limit).map(([row]) => row));
      heads.forEach((head, column) => {
        if (column !== state.column) head.removeAttribute("aria-sort");
        else head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      });
      status.textContent = `${Math.min(limit, found.length)} of ${rows.length}`;
      more.hidden = found.length <= kept.length;
      more.textContent = state.all ? "Show fewer" : "Show all";
    };
    heads.forEach((head, column) => {
      const button = element("button", head.textContent);
      button.addEventListener("click", () => {
        state.down = column === state.column ? !state.down : column > 0;
        state.column = column;
        show();
      });
      head.replaceChildren(button);
    });
    search.addEventListener("input", show);
    more.addEventListener("click", () => { state.all = !state.all; show(); });
    tools.append(search, status, more);
    tools.hidden = false;
    show();
  };

  // Adds the rates to a table of counts.
  const addRates = (table) => {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    for (const column of [names.indexOf("4xx"), names.indexOf("5xx, no answer")].filter((each) => each > 0)) {
      const head = element("th", `${names[column]}: rate`);
      head.scope = "col";
      table.tHead.rows[0].append(head);
      for (const row of table.tBodies[0].rows) {
        const [all, part] = [1, column].map((each) => parse(row.cells[each].textContent));
        row.append(element("td", !all ? "–" : part ? `${(part * 100 / all).toFixed(1)} %` : "0 %"));
      }
    }
  };

  const readout = document.getElementById("readout");
  // The charts of a range share a mark, and a text with the row of the table below them.
  const follow = (range) => {
    const table = range.querySelector(".numbers table");
    if (!table) return;
    addRates(table);
    const head = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = table.tBodies[0].rows;
    const fields = [...range.querySelectorAll(".field")];
    const marks = fields.map(() => drawn("rect", {class: "hover", height: "100%", width: `${100 / rows.length}%`}));
    const move = (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const place = Math.min(rows.length - 1, Math.max(0, Math.floor(share * rows.length)));
      fields.forEach((field, at) => {
        marks[at].setAttribute("x", `${place * 100 / rows.length}%`);
        field.append(marks[at]);
      });
      const cells = [...rows[place].cells].map((cell) => cell.textContent.trim());
      readout.replaceChildren(element("strong", cells[0]),
        ...cells.slice(1).flatMap((text, at) => [element("span", head[at + 1]), element("span", text)]));
      readout.hidden = false;
      const right = event.clientX + 16;
      readout.style.left = `${right + readout.offsetWidth > innerWidth ? right - 32 - readout.offsetWidth : right}px`;
      readout.style.top = `${Math.max(8, Math.min(event.clientY, innerHeight - readout.offsetHeight - 8))}px`;
    };
    const leave = () => { marks.forEach((mark) => mark.remove()); readout.hidden = true; };
    for (const field of fields) {
      field.addEventListener("pointermove", move);
      field.addEventListener("pointerleave", leave);
    }
  };

  document.querySelectorAll(".tools").forEach(enhance);
  document.querySelectorAll(".range, .live").forEach(follow);
})();
