"use strict";

// A slice viewer: scans, truth and predictions of segmented subjects, from pictures of all their slices.
(() => {
  /**
   * @typedef {{name: string, colour: string}} Category
   * @typedef {{
   *   name: string, shape: number[], spacing: number[], columns: number, start: number, categories: Category[],
   *   scans: {name: string, image: string | null}[], truth: string, predictions: Object<string, Object<string, string>>
   * }} Subject
   * @typedef {{canvas: HTMLCanvasElement, caption: HTMLElement, figure: HTMLElement}} Panel
   */

  const root = document.getElementById("viewer");
  /** @type {{runs: string[], subjects: Subject[]}} */
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const largestPanel = 300;

  /** @type {Map<string, Promise<ImageData>>} */
  const sheets = new Map();
  const state = { subject: data.subjects[0], level: 0, scan: 0, subset: "", opacity: 0.6, outline: false };
  /** @type {Set<string>} */
  const hiddenCategories = new Set();
  /** @type {Set<string>} */
  const hiddenRuns = new Set();
  /** @type {Panel[]} */
  let panels = [];
  let drawing = 0;

  /**
   * An element with properties and children.
   * @param {string} tag
   * @param {Object<string, unknown>} [properties]
   * @param {(Node | string)[]} children
   * @returns {HTMLElement}
   */
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, String(value));
    }
    made.append(...children);
    return made;
  }

  /**
   * The pixels of a picture; decoded once.
   * @param {string} uri
   * @returns {Promise<ImageData>}
   */
  function pixelsOf(uri) {
    if (!sheets.has(uri)) {
      const image = new Image();
      image.src = uri;
      sheets.set(uri, image.decode().then(() => {
        const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      }));
    }
    return sheets.get(uri);
  }

  /**
   * One slice of a sheet: the red channel, which is the grey value.
   * @param {ImageData} sheet
   * @returns {Uint8Array} row by row
   */
  function sliceOf(sheet) {
    const [width, depth] = state.subject.shape;
    const left = (state.level % state.subject.columns) * width;
    const top = Math.floor(state.level / state.subject.columns) * depth;
    const values = new Uint8Array(width * depth);
    for (let y = 0; y < depth; y++) {
      for (let x = 0; x < width; x++) {
        values[y * width + x] = sheet.data[4 * ((top + y) * sheet.width + left + x)];
      }
    }
    return values;
  }

  /** @returns {number[][]} red, green and blue by category; empty for the background and what is hidden */
  function colours() {
    const shown = state.subject.categories.map(({ name, colour }) =>
      hiddenCategories.has(name) ? [] : [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    return [[], ...shown];
  }

  /**
   * Whether a pixel of a labelled area has a neighbour outside of it.
   * @param {Uint8Array} labels
   * @param {number} x
   * @param {number} y
   */
  function isEdge(labels, x, y) {
    const [width, depth] = state.subject.shape;
    if (labels[y * width + x] === 0) return false;
    return [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]].some(([i, j]) =>
      i < 0 || j < 0 || i >= width || j >= depth || labels[j * width + i] === 0);
  }

  /**
   * @param {Panel} panel
   * @param {Uint8Array} scan
   * @param {Uint8Array | null} labels
   * @param {Uint8Array} truth
   */
  function paint(panel, scan, labels, truth) {
    const [width, depth] = state.subject.shape;
    const palette = colours();
    const picture = new ImageData(width, depth);
    for (let y = 0; y < depth; y++) {
      for (let x = 0; x < width; x++) {
        const at = y * width + x;
        const colour = labels === null ? [] : palette[labels[at]];
        for (let channel = 0; channel < 3; channel++) {
          const grey = scan[at];
          const mixed = colour.length ? grey + state.opacity * (colour[channel] - grey) : grey;
          picture.data[4 * at + channel] = state.outline && isEdge(truth, x, y) ? 255 : Math.round(mixed);
        }
        picture.data[4 * at + 3] = 255;
      }
    }
    panel.canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  /** @returns {Promise<void>} */
  async function draw() {
    const turn = ++drawing;
    const subject = state.subject;
    const [width, depth, slices] = subject.shape;
    const wanted = [
      ...subject.scans.map(({ image }) => image),
      subject.truth,
      ...data.runs.map((run) => subject.predictions[run]?.[state.subset] ?? null),
    ];
    const loaded = await Promise.all(wanted.map((uri) => (uri === null ? null : pixelsOf(uri))));
    // Another slice was asked for meanwhile.
    if (turn !== drawing) return;
    const planes = loaded.map((sheet) => (sheet === null ? null : sliceOf(sheet)));
    const empty = new Uint8Array(width * depth);
    const truth = planes[subject.scans.length];
    const below = planes[state.scan] ?? empty;
    panels.forEach((panel, number) => {
      const isScan = number < subject.scans.length;
      const run = number > subject.scans.length ? data.runs[number - subject.scans.length - 1] : null;
      const name = isScan ? subject.scans[number].name : run ?? "truth";
      const hidden = hiddenRuns.has(name) && !isScan;
      paint(panel, isScan ? planes[number] ?? empty : below, isScan || hidden ? null : planes[number], truth);
      panel.caption.textContent = planes[number] !== null ? name
        : isScan ? `${name}: no such scan` : `${name}: no prediction from ${state.subset}`;
    });
    root.querySelector("output[name=slice]").textContent = `${state.level + 1} of ${slices}`;
    root.dataset.drawn = `${subject.name} ${state.level} ${state.subset}`;
  }

  /** @param {number} level */
  function goTo(level) {
    const last = state.subject.shape[2] - 1;
    state.level = Math.min(Math.max(level, 0), last);
    root.querySelector("input[name=slice]").value = String(state.level);
    draw();
  }

  /**
   * @param {string} name
   * @param {string} title
   * @param {string[]} options
   * @param {number} chosen
   * @param {(value: string) => void} onChange
   */
  function choice(name, title, options, chosen, onChange) {
    const select = element("select", { name });
    options.forEach((option, number) => select.append(element("option", { value: option, selected: number === chosen }, option)));
    select.addEventListener("change", () => onChange(select.value));
    return element("label", {}, title, select);
  }

  /**
   * @param {string} name
   * @param {(Node | string)[]} title
   * @param {boolean} checked
   * @param {(checked: boolean) => void} onChange
   */
  function toggle(name, title, checked, onChange) {
    const box = element("input", { type: "checkbox", name, checked });
    box.addEventListener("change", () => onChange(box.checked));
    return element("label", { className: "toggle" }, box, ...title);
  }

  /**
   * @param {Set<string>} hidden
   * @param {string} name
   */
  const switching = (hidden, name) => (/** @type {boolean} */ shown) => {
    if (shown) hidden.delete(name);
    else hidden.add(name);
    draw();
  };

  function sliders() {
    const last = state.subject.shape[2] - 1;
    const slice = element("input", { type: "range", name: "slice", min: "0", max: String(last), step: "1" });
    slice.value = String(state.level);
    slice.addEventListener("input", () => goTo(Number(slice.value)));
    const opacity = element("input", { type: "range", name: "opacity", min: "0", max: "100", step: "5" });
    opacity.value = String(Math.round(100 * state.opacity));
    opacity.addEventListener("input", () => {
      state.opacity = Number(opacity.value) / 100;
      draw();
    });
    return [
      element("label", { className: "wide" }, "Axial slice ", element("output", { name: "slice" }), slice),
      element("label", {}, "Opacity of labels", opacity),
    ];
  }

  function controls() {
    const subject = state.subject;
    const subsets = [...new Set(Object.values(subject.predictions).flatMap((own) => Object.keys(own)))];
    if (!subsets.includes(state.subset)) state.subset = subsets.at(-1) ?? "";
    const names = data.subjects.map(({ name }) => name);
    const scans = subject.scans.map(({ name }) => name);
    const swatch = (/** @type {string} */ colour) => element("span", { className: "swatch", style: `background:${colour}` });
    return element("form", { className: "controls" },
      choice("subject", "Subject", names, names.indexOf(subject.name), (name) => show(names.indexOf(name))),
      choice("subset", "Prediction from", subsets, subsets.indexOf(state.subset), (name) => { state.subset = name; draw(); }),
      choice("scan", "Scan below the labels", scans, state.scan, (name) => { state.scan = scans.indexOf(name); draw(); }),
      ...sliders(),
      element("fieldset", {}, element("legend", {}, "Labels of"),
        ...["truth", ...data.runs].map((name) => toggle(`run ${name}`, [name], !hiddenRuns.has(name), switching(hiddenRuns, name)))),
      element("fieldset", {}, element("legend", {}, "Categories"),
        ...subject.categories.map(({ name, colour }) =>
          toggle(`category ${name}`, [swatch(colour), name], !hiddenCategories.has(name), switching(hiddenCategories, name)))),
      element("fieldset", {}, element("legend", {}, "Everywhere"),
        toggle("outline", ["outline of the truth"], state.outline, (shown) => { state.outline = shown; draw(); })));
  }

  /** @returns {HTMLElement} */
  function pictures() {
    const [width, depth, slices] = state.subject.shape;
    const [across, along] = state.subject.spacing;
    const scale = Math.max(1, Math.floor(largestPanel / Math.max(width, depth * (along / across))));
    const made = [...state.subject.scans.map(({ name }) => name), "truth", ...data.runs].map((name) => {
      const canvas = element("canvas", { width, height: depth, role: "img", "aria-label": `Axial slice: ${name}` });
      canvas.style.width = `${scale * width}px`;
      canvas.style.aspectRatio = `${width * across} / ${depth * along}`;
      const caption = element("figcaption", {}, name);
      return { canvas, caption, figure: element("figure", {}, canvas, caption) };
    });
    panels = made;
    const area = element("div", { className: "panels", tabIndex: 0, role: "group" }, ...made.map(({ figure }) => figure));
    area.setAttribute("aria-label", "Slices; arrow keys, Page Up and Page Down, Home and End go through them");
    area.addEventListener("wheel", (event) => {
      event.preventDefault();
      goTo(state.level + Math.sign(event.deltaY));
    }, { passive: false });
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -slices, End: slices };
    area.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      goTo(state.level + steps[event.key]);
    });
    return area;
  }

  /** @param {number} number */
  function show(number) {
    const focused = document.activeElement instanceof HTMLSelectElement ? document.activeElement.name : null;
    state.subject = data.subjects[number];
    state.level = state.subject.start;
    root.replaceChildren(controls(), pictures());
    if (focused !== null) root.querySelector(`select[name="${focused}"]`)?.focus();
    draw();
  }

  show(0);
})();
