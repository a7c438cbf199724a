"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("scripted");

  // Numbers as the page writes them: three digits, no exponent where one can be avoided.
  const plain = (value) => {
    if (typeof value === "string") return value;
    if (value === null) return "–";
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e9) return value.toLocaleString("en");
    if (size >= 1e6 || size < 1e-4) return value.toExponential(1).replace("e+", "e");
    return value.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
  };
  const element = (kind, className, parent) => {
    const made = document.createElement(kind);
    made.className = className;
    parent.append(made);
    return made;
  };
  const keep = (value, low, high) => Math.min(high, Math.max(low, value));

  // Theme: ?theme=dark, then what was chosen before, then what the system prefers.
  const stored = () => { try { return localStorage.getItem("fullrank-theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("fullrank-theme", theme); } catch { /* private window */ } };
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const asked = new URLSearchParams(location.search).get("theme") || stored();
  if (asked === "dark" || asked === "light") root.dataset.theme = asked;
  const button = document.querySelector(".theme");
  const name = () => { button.lastElementChild.textContent = isDark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    name();
  });
  prefersDark.addEventListener("change", name);
  name();

  // Pointing at a figure, or moving in it with the arrow keys.
  const explore = (area, title, { at, step, leave }) => {
    area.tabIndex = 0;
    area.setAttribute("role", "application");
    area.setAttribute("aria-label", `${area.getAttribute("aria-label") || title} Arrow keys read out values.`);
    const point = (event) => {
      const box = area.getBoundingClientRect();
      at(keep((event.clientX - box.left) / box.width, 0, 1), keep((event.clientY - box.top) / box.height, 0, 1));
    };
    area.addEventListener("pointermove", point);
    area.addEventListener("pointerdown", point);
    area.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    area.addEventListener("blur", leave);
    area.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape") leave();
      if (!(event.key in moves)) return;
      event.preventDefault();
      step(...moves[event.key]);
    });
  };

  const nearest = (values, target) => {
    let best = 0;
    values.forEach((value, index) => { if (Math.abs(value - target) < Math.abs(values[best] - target)) best = index; });
    return best;
  };

  for (const area of all("[data-chart]")) {
    const { curves, x_label: unit } = figures.charts[area.dataset.chart];
    const own = curves.filter((curve) => !curve.role.startsWith("reference"));
    const longest = own.reduce((one, other) => (other.px.length > one.px.length ? other : one));
    const readout = area.closest("figure").querySelector(".readout");
    let index = longest.px.length - 1;
    let marks = [];
    const leave = () => {
      marks.forEach((mark) => mark.remove());
      marks = [];
      readout.textContent = readout.dataset.rest;
    };
    const at = (curve, across) => {
      const place = nearest(curve.px, across);
      if (Math.abs(curve.px[place] - across) > 4) return null;
      const dot = element("span", `cursor-dot ${curve.role}`, area);
      dot.style.left = `${curve.px[place]}%`;
      dot.style.top = `${curve.py[place]}px`;
      marks.push(dot);
      return plain(curve.y[place]);
    };
    const show = (chosen) => {
      leave();
      index = keep(chosen, 0, longest.px.length - 1);
      const across = longest.px[index];
      const line = element("span", "cursor", area);
      line.style.left = `${across}%`;
      marks.push(line);
      readout.textContent = typeof longest.x[index] === "string" ? longest.x[index] : `${unit} ${plain(longest.x[index])}`;
      for (const curve of own) {
        const value = at(curve, across);
        if (value === null) continue;
        readout.append(" ");
        const words = element("span", `${curve.role} value`, readout);
        words.textContent = curve.label ? `${curve.label} ` : "";
        element("b", "", words).textContent = value;
        for (const behind of curves.filter((one) => one.role === `reference ${curve.role}`)) {
          const other = at(behind, across);
          if (other !== null) words.append(` (${own.length > 1 ? "" : `${behind.label} `}${other})`);
        }
      }
    };
    explore(area, area.dataset.title, {
      at: (x) => show(nearest(longest.px, 100 * x)),
      step: (across, down) => show(marks.length ? index + across - down : index),
      leave,
    });
  }

  for (const area of all("[data-heat-map]")) {
    const { dimensions, values } = figures.heat_maps[area.dataset.heatMap];
    const bytes = Int8Array.from(atob(values), (letter) => letter.charCodeAt(0));
    const count = dimensions.length;
    const readout = area.closest("figure").querySelector(".readout");
    let cell = null;
    let row = 0;
    let column = 0;
    const leave = () => {
      cell?.remove();
      cell = null;
      readout.textContent = readout.dataset.rest;
    };
    const show = (across, down) => {
      leave();
      column = keep(across, 0, count - 1);
      row = keep(down, 0, count - 1);
      cell = element("span", "cell", area);
      const side = 100 / count;
      Object.assign(cell.style, { left: `${column * side}%`, top: `${row * side}%`, width: `${side}%`, height: `${side}%` });
      const value = bytes[row * count + column];
      readout.textContent = `dimensions ${dimensions[row]} and ${dimensions[column]}  `;
      element("b", "", readout).textContent = value === -128 ? "constant" : (value / 100).toFixed(2).replace("-", "−");
    };
    explore(area, area.dataset.title, {
      at: (x, y) => show(Math.floor(x * count), Math.floor(y * count)),
      step: (across, down) => show(column + (cell ? across : 0), row + (cell ? down : 0)),
      leave,
    });
  }

  const map = document.querySelector("[data-map]");
  if (map) {
    const { x, y, label, classes, names, sprite, thing } = figures.map;
    const sheet = document.querySelector(".sprite");
    const canvas = map.querySelector("canvas");
    const readout = document.querySelector(".map-readout");
    let chosen = -1;
    let only = "";
    let marks = [];
    const visible = (index) => only === "" || String(label[index]) === only;
    const words = (index) => [classes[label[index]], names[index]].filter(Boolean).join(", ") || `${thing} ${index + 1}`;
    const cut = (index, context, left, top, side) => {
      const column = index % sprite.columns;
      const row = Math.floor(index / sprite.columns);
      const height = (side * sprite.height) / sprite.width;
      context.drawImage(sheet, column * sprite.width, row * sprite.height, sprite.width, sprite.height, left, top, side, height);
    };
    const leave = () => {
      marks.forEach((mark) => mark.remove());
      marks = [];
      chosen = -1;
    };
    const show = (index) => {
      if (index < 0 || index === chosen) return;
      leave();
      chosen = index;
      const ring = element("span", "ring", map);
      Object.assign(ring.style, { left: `${x[index]}%`, top: `${y[index]}%` });
      const tip = element("div", "tip", map);
      if (sprite) {
        const picture = element("canvas", "", tip);
        picture.width = sprite.width;
        picture.height = sprite.height;
        cut(index, picture.getContext("2d"), 0, 0, sprite.width);
      }
      element("span", "", tip).textContent = words(index);
      const box = map.getBoundingClientRect();
      const left = (x[index] / 100) * box.width;
      const top = (y[index] / 100) * box.height;
      const beside = left + 16 + tip.offsetWidth < box.width ? left + 16 : left - 16 - tip.offsetWidth;
      tip.style.left = `${keep(beside, 4, Math.max(4, box.width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${keep(top - tip.offsetHeight / 2, 4, Math.max(4, box.height - tip.offsetHeight - 4))}px`;
      readout.textContent = words(index);
      marks = [ring, tip];
    };
    const closest = (across, down, wanted = () => true) => {
      let best = -1;
      let least = Infinity;
      x.forEach((place, index) => {
        const distance = (place - across) ** 2 + (y[index] - down) ** 2;
        if (distance < least && visible(index) && wanted(index)) [best, least] = [index, distance];
      });
      return best;
    };
    const step = (across, down) => {
      if (chosen < 0) return show(closest(50, 50));
      const here = [x[chosen], y[chosen]];
      const ahead = (index) => {
        const [dx, dy] = [x[index] - here[0], y[index] - here[1]];
        return dx * across + dy * down > Math.abs(dx * down) + Math.abs(dy * across);
      };
      return show(closest(here[0], here[1], ahead));
    };
    explore(map, "Map", { at: (across, down) => show(closest(100 * across, 100 * down)), step, leave });

    // Pictures where there is room, the rest left out: none lies on another.
    const paint = () => {
      const box = map.getBoundingClientRect();
      const scale = window.devicePixelRatio || 1;
      canvas.width = box.width * scale;
      canvas.height = box.height * scale;
      const context = canvas.getContext("2d");
      context.scale(scale, scale);
      context.imageSmoothingEnabled = false;
      const side = keep(box.width / 25, 18, 32);
      const placed = [];
      x.forEach((place, index) => {
        if (!visible(index)) return;
        const left = keep((place / 100) * box.width - side / 2, 0, box.width - side);
        const top = keep((y[index] / 100) * box.height - side / 2, 0, box.height - side);
        if (placed.some(([a, b]) => Math.abs(a - left) < side + 1 && Math.abs(b - top) < side + 1)) return;
        placed.push([left, top]);
        cut(index, context, left, top, side);
      });
    };
    const draw = (kind) => {
      all("[data-draw]").forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.draw === kind)));
      canvas.hidden = kind !== "pictures";
      map.querySelector("svg").style.opacity = kind === "pictures" ? 0.35 : 1;
      if (!canvas.hidden) paint();
    };
    const filter = (wanted) => {
      only = wanted;
      leave();
      all(".dots", map).forEach((dots) => dots.classList.toggle("away", only !== "" && dots.dataset.label !== only));
      all("[data-class]").forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.class === only)));
      if (canvas && !canvas.hidden) paint();
    };
    all("[data-draw]").forEach((one) => one.addEventListener("click", () => draw(one.dataset.draw)));
    all("[data-class]").forEach((one) => one.addEventListener("click", () => filter(one.dataset.class === only ? "" : one.dataset.class)));
    document.querySelector("[data-classes]")?.addEventListener("change", (event) => filter(event.target.value));
    addEventListener("resize", () => { leave(); if (canvas && !canvas.hidden) paint(); });
  }

  for (const copy of all(".copy")) {
    copy.addEventListener("click", async () => {
      const code = copy.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1600);
    });
  }

  // The contents follow the reader.
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const mark = () => {
    const passed = [...links.keys()].filter((id) => document.getElementById(id).getBoundingClientRect().top < innerHeight / 3);
    links.forEach((link, id) => (id === passed.at(-1) ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  addEventListener("beforeprint", () => all("details").forEach((one) => { one.open = true; }));
  root.dataset.ready = "true";
})();
