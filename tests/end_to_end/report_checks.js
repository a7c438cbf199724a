// Run inside the report: what a reader could not read.

// Text whose colour stands out too little from what is behind it (WCAG 2: 4.5 to 1).
const lowContrast = () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = () => {
    const [red, green, blue] = [...context.getImageData(0, 0, 1, 1).data].map((value) => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !parent.getClientRects().length || parent.closest("script, style")) continue;
    const grounds = [];
    for (let node = parent; node; node = node.parentElement) grounds.unshift(getComputedStyle(node).backgroundColor);
    paint("white");
    grounds.forEach(paint);
    const ground = luminance();
    paint(getComputedStyle(parent).color);
    const ink = luminance();
    const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (contrast < 4.5) found.push([text, contrast]);
  }
  return found;
};

// Elements that stick out of the window, text that is cut, and labels that lie on each other.
const badLayout = () => {
  const found = [];
  const width = document.documentElement.clientWidth;
  const scrolls = (node) => node.closest(".scroll, pre, .sr, .map-readout, .skip, canvas");
  for (const node of document.querySelectorAll("main *, nav *")) {
    const box = node.getBoundingClientRect();
    const outside = box.width && (box.right > width + 0.5 || box.left < -0.5);
    if (outside && !scrolls(node)) found.push(["outside", node.className, box.right]);
  }
  for (const node of document.querySelectorAll("h1, h2, h3, td, th, dd, dt, figcaption, output, .bar-value, .bar-note")) {
    const cut = node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline";
    if (cut && !scrolls(node)) found.push(["cut", node.textContent]);
  }
  for (const area of document.querySelectorAll(".area")) {
    const labels = [...area.querySelectorAll(".tick, .end, .mark-label")].map((node) => [
      node.textContent,
      node.getBoundingClientRect(),
    ]);
    for (const tick of area.querySelectorAll(".tick.x")) {
      if (tick.getBoundingClientRect().top < area.getBoundingClientRect().bottom) found.push(["covers", tick.textContent]);
    }
    labels.forEach(([one, a], index) => {
      for (const [other, b] of labels.slice(index + 1)) {
        const across = a.left < b.right - 1 && b.left < a.right - 1;
        const down = a.top < b.bottom - 3 && b.top < a.bottom - 3;
        if (across && down && a.width && b.width) found.push(["overlap", one, other]);
      }
    });
  }
  return found;
};
