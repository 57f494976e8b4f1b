"use strict";
(() => {
  const root = document.documentElement, all = (s, e = document) => [...e.querySelectorAll(s)];
  const one = (s, e = document) => e.querySelector(s);
  root.classList.add("js");

  /* The theme follows the system until somebody chooses. */
  const dark = matchMedia("(prefers-color-scheme: dark)"), theme = one("#theme");
  const shown = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const name = () => { const next = shown() === "dark" ? "light" : "dark"; theme.textContent = next === "dark" ? "Dark" : "Light"; theme.setAttribute("aria-label", "Show in " + next + " colours"); };
  theme.addEventListener("click", () => { root.dataset.theme = shown() === "dark" ? "light" : "dark"; name(); });
  dark.addEventListener("change", name); name();

  const say = (button, text) => { const was = button.textContent; button.textContent = text; setTimeout(() => { button.textContent = was; }, 1500); };
  all("[data-copy]").forEach(b => b.addEventListener("click", () => {
    const source = one("#" + b.dataset.copy), range = document.createRange();
    range.selectNodeContents(source); getSelection().removeAllRanges(); getSelection().addRange(range);
    const done = () => say(b, "Copied");
    if (navigator.clipboard && isSecureContext) navigator.clipboard.writeText(source.textContent).then(done, () => document.execCommand("copy") && done());
    else if (document.execCommand("copy")) done();
  }));
  all("[data-save]").forEach(b => b.addEventListener("click", () => {
    const source = one("#" + b.dataset.save), json = source.type === "application/json";
    const text = json ? JSON.stringify(JSON.parse(source.textContent), null, 2) + "\n" : source.textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: json ? "application/json" : "application/yaml" }));
    link.download = b.dataset.file; link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 5000);
  }));

  const line = one("#timeline"), drawn = JSON.parse(one("#drawn").textContent);
  if (!line) return;
  const WIDE = 10000, figures = all("figure[data-panel]", line);
  const data = Object.fromEntries(drawn.panels.map(p => [p.key, p]));

  /* Curves and scales that can be switched. */
  figures.forEach(figure => {
    all(".series button", figure).forEach(b => {
      b.disabled = false;
      b.addEventListener("click", () => {
        const on = b.getAttribute("aria-pressed") !== "true";
        b.setAttribute("aria-pressed", on);
        all(`path[data-series="${b.dataset.series}"]`, figure).forEach(p => p.classList.toggle("off", !on));
      });
    });
    const scales = all(".scales button", figure);
    scales.forEach(b => b.addEventListener("click", () => {
      scales.forEach(o => o.setAttribute("aria-pressed", o === b));
      all(".drawing", figure).forEach(d => { d.hidden = d.dataset.scale !== b.dataset.scale; });
    }));
  });

  /* Zoom: every place is a share of the run, so the window is two numbers. */
  const view = { from: 0, span: 100 };
  const short = v => String(+v.toPrecision(12));
  const step = raw => { const p = 10 ** Math.floor(Math.log10(raw)); return p * [1, 2, 5, 10].find(s => p * s >= raw * 0.999); };
  const fresh = (box, tag, places, label) => {
    all(tag + ".x", box).forEach(e => e.remove());
    places.forEach(t => { const e = document.createElement(tag); e.className = "x"; e.style.setProperty("--x", t / drawn.length * 100); if (label) e.textContent = short(t); box.append(e); });
  };
  const zoom = (from, span) => {
    span = Math.max(Math.min(span, 100), 0.05); from = Math.max(0, Math.min(from, 100 - span));
    Object.assign(view, { from, span });
    line.style.setProperty("--from", from); line.style.setProperty("--span", span);
    all("svg.curves", line).forEach(s => s.setAttribute("viewBox", `${from / 100 * WIDE} 0 ${span / 100 * WIDE} 1000`));
    const low = from / 100 * drawn.length, high = (from + span) / 100 * drawn.length, s = step((high - low) / 8), places = [];
    for (let i = Math.ceil(low / s - 1e-9); i <= Math.floor(high / s + 1e-9); i++) places.push(+(i * s).toPrecision(12));
    all(".axis", line).forEach(a => fresh(a, "span", places, true));
    all(".grid", line).forEach(g => fresh(g, "i", places, false));
    all("[data-zoom]", line).forEach(b => b.setAttribute("aria-pressed", Math.abs(+b.dataset.from - from) < .01 && Math.abs(+b.dataset.span - span) < .01));
  };
  all("[data-zoom]", line).forEach(b => b.addEventListener("click", () => zoom(+b.dataset.from, +b.dataset.span)));

  /* The read-out: one moment over all panels, by pointer or by arrow keys. */
  const now = one(".now", line);
  const units = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
  const big = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
  const three = v => v === 0 ? "0" : String(+v.toPrecision(Math.abs(v) >= 100 ? 4 : 3));
  const amount = (v, unit) => {
    if (unit === "s") { const u = units.find(u => Math.abs(v) >= u[0] * 0.9995) || units[3]; return v === 0 ? "0 s" : String(+(v / u[0]).toPrecision(3)) + " " + u[1]; }
    if (unit === "ratio") return three(v * 100) + " %";
    if (unit === "B" || unit === "B/s" || unit === "bit/s") { const b = big.find(b => Math.abs(v) >= b[0]) || big[3]; return three(v / b[0]) + " " + b[1] + unit; }
    return three(v) + (unit ? " " + unit : "");
  };
  const nearest = (points, t) => {
    let low = 0, high = points.length - 1;
    while (low < high) { const mid = (low + high) >> 1; if (points[mid][0] < t) low = mid + 1; else high = mid; }
    const before = points[low - 1], here = points[low];
    const p = before && (!here || t - before[0] < here[0] - t) ? before : here;
    return p && Math.abs(p[0] - t) <= Math.max(drawn.length * 0.03, 1) ? p[1] : null;
  };
  let at = null;
  const read = share => {
    at = Math.max(0, Math.min(share, 100));
    const t = at / 100 * drawn.length;
    line.classList.add("reading"); now.textContent = "at " + t.toFixed(2) + " s";
    all(".cursor", line).forEach(c => c.style.setProperty("--x", at));
    figures.forEach(f => all(".series button", f).forEach(b => {
      const panel = data[f.dataset.panel], v = nearest(panel.series[+b.dataset.series], t);
      one("output", b).textContent = v === null ? "–" : f.dataset.labels ? (v ? "ok" : "failed") : amount(v, panel.unit);
    }));
  };
  const stop = () => { at = null; line.classList.remove("reading"); now.textContent = ""; all(".series output", line).forEach(o => { o.textContent = ""; }); };
  const where = (event, box) => { const r = box.getBoundingClientRect(); return view.from + (event.clientX - r.left) / r.width * view.span; };
  let start = null;
  all(".plot", line).forEach(plot => {
    plot.addEventListener("pointermove", e => {
      const x = where(e, plot); read(x);
      if (start !== null && Math.abs(x - start) > view.span * 0.01) {
        all(".brush", line).forEach(b => { b.hidden = false; b.style.setProperty("--x", Math.min(x, start)); b.style.setProperty("--w", Math.abs(x - start)); });
      }
    });
    plot.addEventListener("pointerdown", e => { if (e.pointerType === "mouse" && e.button === 0) { start = where(e, plot); plot.setPointerCapture(e.pointerId); e.preventDefault(); } });
    plot.addEventListener("pointerup", e => {
      const x = where(e, plot);
      if (start !== null && Math.abs(x - start) > view.span * 0.01) zoom(Math.min(x, start), Math.abs(x - start));
      start = null; all(".brush", line).forEach(b => { b.hidden = true; });
    });
    plot.addEventListener("dblclick", () => zoom(0, 100));
    plot.addEventListener("pointerleave", () => { if (start === null) stop(); });
  });
  all(".lines li[data-at]").forEach(li => {
    li.addEventListener("pointerenter", () => read(+li.dataset.at / drawn.length * 100));
    li.addEventListener("pointerleave", stop);
  });
  line.addEventListener("keydown", e => {
    if (e.target !== line) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[e.key];
    if (by) { e.preventDefault(); read((at === null ? view.from : at) + by * view.span / 200); }
    else if (e.key === "Escape") { stop(); zoom(0, 100); }
  });
})();
