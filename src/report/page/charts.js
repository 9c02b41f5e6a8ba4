// SPDX-License-Identifier: MIT
//
// charts.js: curves in SVG, for report.html and the dashboard. No library, no network.
//
//   const group = kiln.group();                       one zoom and one cursor for its charts
//   const chart = kiln.chart(parent, {title, format, log}, group);
//   chart.set([{name, steps, values, axis, colour, dash, kind}]);   kind: line, faint or dots
//
// Texts reach the page as text nodes only, never as markup. All colours are variables of style.css.
'use strict';
var kiln = window.kiln || {};

(function () {
  const SVG = 'http://www.w3.org/2000/svg';

  // ---- elements -------------------------------------------------------------------------------

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === 'function') {
        node.addEventListener(name, value);
      } else if (name === 'style') {
        node.style.cssText = value; // what the dashboard's Content-Security-Policy allows
      } else if (value !== null && value !== undefined && value !== false) {
        node.setAttribute(name, value === true ? '' : value);
      }
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }
  kiln.el = (tag, attributes, ...children) =>
    fill(document.createElement(tag), attributes, children);
  kiln.svg = (tag, attributes, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);
  const {el, svg} = kiln;

  // ---- quantities as kiln writes them ----------------------------------------------------------

  const finite = Number.isFinite;
  function grouped(n) {
    return finite(n) ? Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, ',') : '–';
  }
  function short(n) {
    const size = Math.abs(n);
    if (!finite(n)) return '–';
    if (size >= 999.5e6) return trim((n / 1e9).toPrecision(3)) + 'G';
    if (size >= 999.5e3) return trim((n / 1e6).toPrecision(3)) + 'M';
    if (size >= 9999.5) return trim((n / 1e3).toPrecision(3)) + 'k';
    return trim(n.toPrecision(4));
  }
  function trim(text) {
    return /e/.test(text) ? text.replace(/\.?0*e\+?/, 'e')
      : /\./.test(text) ? text.replace(/\.?0+$/, '') : text;
  }
  function small(n) {
    return !finite(n) ? '–' : n !== 0 && Math.abs(n) < 0.01 ? trim(n.toExponential(2)) : short(n);
  }
  function bytes(n) {
    const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
    if (!finite(n)) return '–';
    let unit = 0;
    for (; n >= 999.5 && unit + 1 < units.length; unit++) n /= 1000;
    return n.toFixed(unit > 0 && n < 9.95 ? 1 : 0) + ' ' + units[unit];
  }
  function time(s) {
    const two = (n) => String(n).padStart(2, '0');
    if (!finite(s) || s < 0) return '–';
    const whole = Math.floor(s + 0.5);
    if (s === 0) return '0';
    if (s < 0.9995) return (s * 1e3).toFixed(s < 0.00995 ? 1 : 0) + ' ms';
    if (s < 9.95) return s.toFixed(1) + ' s';
    if (whole < 100) return whole + ' s';
    if (whole < 3600) return Math.floor(whole / 60) + ' min ' + two(whole % 60) + ' s';
    if (whole < 86400) {
      return Math.floor(whole / 3600) + ' h ' + two(Math.floor((whole % 3600) / 60)) + ' min';
    }
    return Math.floor(whole / 86400) + ' d ' + two(Math.floor((whole % 86400) / 3600)) + ' h';
  }
  const loss = (n) => (finite(n) ? n.toFixed(4) : '–');
  const milliseconds = (n) => time(n / 1e3);
  // How many times: two digits, as nobody needs more of them.
  const times = (n) => (finite(n) ? short(Number(n.toPrecision(2))) : '–');
  kiln.format = {grouped, short, small, bytes, time, loss, milliseconds, times};

  // ---- axes -----------------------------------------------------------------------------------

  // Round numbers from low to high, about `count` of them.
  function ticks(low, high, count) {
    const rough = (high - low) / Math.max(count, 1);
    if (!(rough > 0)) return [low];
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].find((n) => n * power >= rough * 0.999) * power;
    const out = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
      out.push(Number((i * step).toPrecision(12)));
    }
    return out;
  }
  // Of a logarithmic axis: decades, or with few of them their 2 and 5, too.
  function logTicks(low, high) {
    const out = [], decades = Math.log10(high / low);
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const n of decades > 3.2 ? [1] : decades > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7]) {
        const value = Number((n * Math.pow(10, power)).toPrecision(6));
        if (value >= low * 0.999 && value <= high * 1.001) out.push(value);
      }
    }
    return out.length > 1 ? out : ticks(low, high, 4);
  }
  kiln.ticks = ticks;

  // First index with list[i] >= x.
  function find(list, x) {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] < x) low = middle + 1; else high = middle;
    }
    return low;
  }
  // Steps as tokens or seconds, straight between the knots that the run has (and behind them).
  function along(steps, axis, mode) {
    if (mode === 'step' || !axis || axis.steps.length < 2) return steps;
    const from = axis.steps, to = axis[mode];
    let i = 1;
    return steps.map((step) => {
      if (step < from[i - 1]) i = 1;
      while (i < from.length - 1 && from[i] < step) i++;
      const share = (step - from[i - 1]) / (from[i] - from[i - 1]);
      return to[i - 1] + share * (to[i] - to[i - 1]);
    });
  }

  // ---- a group: what its charts share ----------------------------------------------------------

  const modes = {
    step: {label: 'step', format: grouped, tick: short},
    tokens: {label: 'tokens', format: short, tick: short},
    seconds: {label: 'time', format: time, tick: time},
  };
  kiln.group = function () {
    const live = el('p', {class: 'hidden', 'aria-live': 'polite'});
    const group = {
      charts: [], mode: 'step', view: null, cursor: null, live,
      axis() { return modes[group.mode]; },
      extent() {
        let low = Infinity, high = -Infinity;
        for (const chart of group.charts) {
          for (const xs of chart.xs) {
            if (xs.length > 0) {
              low = Math.min(low, xs[0]);
              high = Math.max(high, xs[xs.length - 1]);
            }
          }
        }
        if (!(high >= low)) return [0, 1];
        return high > low ? [low, high] : [low - 0.5, high + 0.5];
      },
      range() { return group.view || group.extent(); },
      setMode(mode) {
        group.mode = mode;
        group.view = group.cursor = null;
        group.charts.forEach((chart) => chart.map());
        group.draw();
      },
      zoom(low, high) {
        const [first, last] = group.extent();
        const least = (last - first) / 1e5;
        low = Math.max(low, first);
        high = Math.min(high, last);
        if (high - low < least) return;
        group.view = low <= first && high >= last ? null : [low, high];
        group.draw();
      },
      zoomBy(factor) {
        const [low, high] = group.range();
        const middle = group.cursor !== null && group.cursor >= low && group.cursor <= high
          ? group.cursor : (low + high) / 2;
        group.zoom(middle - (middle - low) * factor, middle + (high - middle) * factor);
      },
      pan(share) {
        const [low, high] = group.range(), [first, last] = group.extent();
        let by = (high - low) * share;
        by = Math.min(Math.max(by, first - low), last - high);
        group.zoom(low + by, high + by);
      },
      whole() { group.view = null; group.draw(); },
      point(x) { group.cursor = x; group.charts.forEach((chart) => chart.point()); },
      // Once a frame, however often it is asked for.
      draw() {
        if (group.asked) return;
        group.asked = true;
        requestAnimationFrame(() => {
          group.asked = false;
          group.charts.forEach((chart) => chart.draw());
        });
      },
    };
    return group;
  };

  // Keys that every chart knows; true: it was one.
  kiln.keys = function (event, group, own) {
    const keys = {
      '+': () => group.zoomBy(0.6), '=': () => group.zoomBy(0.6), '-': () => group.zoomBy(1 / 0.6),
      '0': () => group.whole(), Escape: () => { group.point(null); group.whole(); },
      PageUp: () => group.pan(-0.5), PageDown: () => group.pan(0.5), ...own,
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
  };

  // ---- a chart ---------------------------------------------------------------------------------

  const MARGIN = {left: 54, right: 14, top: 10, bottom: 26};

  // Points of a curve as a path: of each pixel column first, least, greatest and last.
  function pathOf(xs, ys, x, y, low, high) {
    let from = Math.max(find(xs, low) - 1, 0), to = Math.min(find(xs, high) + 1, xs.length);
    let path = '', pen = false, column = null;
    const put = (i) => {
      path += (pen ? 'L' : 'M') + x(xs[i]).toFixed(1) + ' ' + y(ys[i]).toFixed(1);
      pen = true;
    };
    const flush = () => {
      if (column === null) return;
      const marks = [column.first, column.least, column.most, column.last].sort((a, b) => a - b);
      marks.forEach((i, n) => { if (n === 0 || i !== marks[n - 1]) put(i); });
      column = null;
    };
    for (let i = from; i < to; i++) {
      if (!finite(ys[i])) {
        flush();
        pen = false;
        continue;
      }
      const at = Math.floor(x(xs[i]));
      if (column === null || column.at !== at) {
        flush();
        column = {at, first: i, least: i, most: i, last: i};
      }
      if (ys[i] < ys[column.least]) column.least = i;
      if (ys[i] > ys[column.most]) column.most = i;
      column.last = i;
    }
    flush();
    return path;
  }

  // The least and greatest value to draw. A few far outliers are left out where they would press
  // everything else flat; what leaves the chart is clipped, and marked at its edge.
  // start: how a curve begins is no outlier, however steep its way down is.
  function extremes(lists, outliers, start) {
    let low = Infinity, high = -Infinity, n = 0;
    for (const list of lists) {
      for (const value of list) {
        if (!finite(value)) continue;
        n++;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (n === 0) return [0, 1];
    if (outliers && n > 50) {
      const all = Float64Array.from(lists.flat().filter(finite)).sort();
      const most = all[Math.floor(all.length * 0.99)], middle = all[all.length >> 1];
      const begin = !start ? -Infinity : Math.max(...lists.flatMap((list) => list.slice(0, Math.max(8, Math.ceil(list.length / 50))).filter(finite)));
      if (high - low > 4 * (most - low) && most > middle) {
        high = Math.min(high, Math.max(most + (most - low) * 0.25, begin));
      }
    }
    return [low, high];
  }

  class Chart {
    constructor(parent, options, group) {
      this.options = options;
      this.group = group;
      this.series = [];
      this.xs = [];
      this.log = Boolean(options.log);
      this.legend = el('div', {class: 'legend'});
      this.svg = svg('svg', {role: 'img', class: 'drawing'});
      this.plot = el('div', {
        class: 'plot', tabindex: 0, role: 'group',
        'aria-label': options.title + ': chart; arrows move the cursor, plus and minus zoom, 0 shows all',
        keydown: (event) => this.key(event), blur: () => group.point(null),
      }, this.svg);
      this.logButton = el('button', {
        type: 'button', 'aria-pressed': String(this.log), click: () => this.setLog(!this.log),
        title: 'logarithmic or linear (key l)',
      }, 'log');
      this.table = el('details', {class: 'table', toggle: () => this.fillTable()},
        el('summary', {}, 'Values as a table'));
      this.figure = el('figure', {class: 'card chart ' + (options.wide ? 'wide' : '')},
        el('figcaption', {}, el('h3', {}, options.title), options.noLog ? null : this.logButton),
        this.legend, this.plot, this.table);
      parent.append(this.figure);
      this.listen();
      group.charts.push(this);
      new ResizeObserver(() => group.draw()).observe(this.plot);
    }

    set(series) {
      this.series = series;
      this.figure.hidden = series.length === 0;
      this.drawLegend();
      this.map();
      if (this.table.open) this.fillTable();
    }
    map() {
      this.xs = this.series.map((s) => along(s.steps, s.axis, this.group.mode));
    }
    setLog(on) {
      this.log = on;
      this.logButton.setAttribute('aria-pressed', String(on));
      this.draw();
    }

    // ---- drawing

    scales() {
      const width = this.plot.clientWidth, height = this.plot.clientHeight;
      const inner = {
        left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top,
        bottom: height - MARGIN.bottom,
      };
      const [low, high] = this.group.range();
      const lists = this.series.map((s, i) => {
        const from = Math.max(find(this.xs[i], low) - 1, 0);
        return s.values.slice(from, find(this.xs[i], high) + 1);
      });
      let [bottom, top] = extremes(lists, this.options.outliers, this.options.start && !this.group.view);
      const log = this.log && bottom > 0;
      if (this.options.zero && !log) bottom = Math.min(bottom, 0);
      if (!(top > bottom)) {
        const pad = Math.abs(top) * 0.05 || 0.5;
        [bottom, top] = [log ? bottom / 1.1 : bottom - pad, log ? top * 1.1 : top + pad];
      } else if (log) {
        const pad = Math.pow(top / bottom, 0.05);
        [bottom, top] = [bottom / pad, top * pad];
      } else {
        const pad = (top - bottom) * 0.06;
        [bottom, top] = [this.options.zero && bottom === 0 ? 0 : bottom - pad, top + pad];
      }
      const f = log ? Math.log : (v) => v;
      const x = (v) => inner.left + (v - low) / (high - low) * (inner.right - inner.left);
      const y = (v) => inner.bottom -
        (f(v) - f(bottom)) / (f(top) - f(bottom)) * (inner.bottom - inner.top);
      const back = (px) => low + (px - inner.left) / (inner.right - inner.left) * (high - low);
      return {width, height, inner, low, high, bottom, top, log, x, y, back};
    }

    draw() {
      if (this.series.length === 0 || this.plot.clientWidth === 0) return;
      const scale = this.scale = this.scales();
      const {width, height, inner} = scale;
      this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
      this.svg.setAttribute('aria-label', this.words());
      const clip = 'clip-' + (this.id = this.id || 'c' + Math.floor(Chart.count++));
      const curves = svg('g', {'clip-path': `url(#${clip})`});
      this.series.forEach((s, i) => curves.append(...this.curve(s, i)));
      this.overlay = svg('g', {class: 'cursor'});
      this.selection = svg('rect', {class: 'selection', y: inner.top, height: 0, width: 0});
      this.svg.replaceChildren(
        svg('clipPath', {id: clip}, svg('rect', {
          x: inner.left - 5, y: inner.top - 1, width: Math.max(inner.right - inner.left + 10, 0),
          height: Math.max(inner.bottom - inner.top + 2, 0),
        })),
        this.grid(), ...this.marks(), curves, this.selection, this.overlay);
      this.point();
    }

    grid() {
      const {inner, low, high, bottom, top, log, x, y, width} = this.scale;
      const g = svg('g', {class: 'grid'});
      const values = log ? logTicks(bottom, top) : ticks(bottom, top, this.options.wide ? 6 : 4);
      const format = this.options.tick || this.options.format;
      for (const value of values) {
        g.append(svg('line', {x1: inner.left, x2: inner.right, y1: y(value), y2: y(value)}),
          svg('text', {x: inner.left - 8, y: y(value) + 4, 'text-anchor': 'end'}, format(value)));
      }
      const across = this.group.mode === 'seconds' ? timeTicks(low, high, width / 110)
        : ticks(low, high, width / 80);
      for (const value of across) {
        const at = x(value);
        g.append(svg('line', {class: 'tick', x1: at, x2: at, y1: inner.bottom, y2: inner.bottom + 4}),
          svg('text', {
            x: at, y: inner.bottom + 18,
            'text-anchor': at > inner.right - 24 ? 'end' : at < inner.left + 12 ? 'start' : 'middle',
          }, this.group.axis().tick(value)));
      }
      g.append(svg('line', {
        class: 'base', x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom,
      }));
      return g;
    }

    curve(s, i) {
      const {x, y, low, high, inner, top, log} = this.scale;
      const xs = this.xs[i], nodes = [];
      const from = Math.max(find(xs, low) - 1, 0), to = Math.min(find(xs, high) + 1, xs.length);
      const positive = log ? s.values.map((v) => (v > 0 ? v : null)) : s.values;
      if (s.kind !== 'dots' || s.line) {
        nodes.push(svg('path', {
          class: 'curve ' + (s.kind || 'line'), d: pathOf(xs, positive, x, y, low, high),
          style: 'stroke:' + s.colour, 'stroke-dasharray': s.dash || null,
        }));
      }
      for (let k = from; k < to; k++) {
        if (s.kind === 'dots' && finite(positive[k])) {
          nodes.push(svg('circle', {
            cx: x(xs[k]), cy: y(positive[k]), r: to - from > 60 ? 2 : 3.5, class: 'dot',
            style: 'fill:' + s.colour,
          }));
        } else if (s.kind !== 'dots' && s.values[k] === null && nodes.length < 80) {
          nodes.push(svg('text', {
            class: 'bad', x: x(xs[k]), y: inner.top + 12, 'text-anchor': 'middle',
          }, '✕', svg('title', {}, 'not a finite number')));
        } else if (s.kind !== 'dots' && positive[k] > top && nodes.length < 80) {
          nodes.push(svg('path', {
            class: 'beyond', style: 'fill:' + s.colour,
            d: `M${x(xs[k]) - 4} ${inner.top + 7}h8l-4 -7z`,
          }, svg('title', {}, this.options.format(positive[k]))));
        }
      }
      return nodes;
    }

    // Steps at which something happened: {step, kind, text}.
    marks() {
      const {x, inner, low, high} = this.scale;
      return (this.options.marks ? this.options.marks() : []).map((mark) => {
        const at = along([mark.step], mark.axis, this.group.mode)[0];
        if (at < low || at > high) return null;
        return svg('line', {
          class: 'mark ' + mark.kind, x1: x(at), x2: x(at), y1: inner.top, y2: inner.bottom,
        }, svg('title', {}, mark.text));
      }).filter(Boolean);
    }

    // ---- what screen readers are told

    words() {
      const parts = this.series.filter((s) => s.kind !== 'faint' || this.series.length === 1)
        .map((s) => {
          const there = s.values.map((v, i) => [v, s.steps[i]]).filter(([v]) => finite(v));
          if (there.length === 0) return `${s.name}: no values.`;
          const best = there.reduce((a, b) => ((this.options.most ? b[0] > a[0] : b[0] < a[0]) ? b : a));
          const [first, last] = [there[0], there[there.length - 1]];
          const f = this.options.format;
          return `${s.name}: first ${f(first[0])} at step ${grouped(first[1])}, ` +
            `last ${f(last[0])} at step ${grouped(last[1])}, ` +
            `${this.options.most ? 'most' : 'least'} ${f(best[0])} at step ${grouped(best[1])}.`;
        });
      return `${this.options.title}. ${parts.join(' ')}`;
    }
    fillTable() {
      if (!this.table.open) return;
      const main = this.series.reduce((a, b) => (b.steps.length > a.steps.length ? b : a));
      const n = main.steps.length, rows = Math.min(n, 40);
      const head = el('tr', {}, el('th', {scope: 'col'}, 'step'),
        this.series.map((s) => el('th', {scope: 'col'}, s.name)));
      const body = Array.from({length: rows}, (_, r) => {
        const step = main.steps[rows > 1 ? Math.round(r * (n - 1) / (rows - 1)) : 0];
        return el('tr', {}, el('th', {scope: 'row'}, grouped(step)), this.series.map((s) => {
          const k = nearest(s.steps, step);
          const exact = k >= 0 && (s.steps[k] === step || s.kind !== 'dots');
          return el('td', {}, exact ? this.options.format(s.values[k]) : '');
        }));
      });
      const table = el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': this.options.title + ': values'},
        el('table', {}, el('thead', {}, head), el('tbody', {}, body)));
      this.table.replaceChildren(this.table.firstElementChild, table);
    }

    // ---- cursor

    drawLegend() {
      this.values = this.series.map(() => el('output', {}));
      this.legend.replaceChildren(...this.series.map((s, i) => (s.quiet ? '' : el('span',
        {class: 'item'}, kiln.swatch(s), el('span', {}, s.label || s.name), this.values[i]))),
      ...this.drawMarkNames());
    }
    // What the upright lines are, once on a page: in its wide chart.
    drawMarkNames() {
      const marks = this.options.wide && this.options.marks ? this.options.marks() : [];
      return Object.entries({incident: 'incident', skipped: 'step skipped', restart: 'another process'})
        .filter(([kind]) => marks.some((mark) => mark.kind === kind))
        .map(([kind, name]) => el('span', {class: 'item'},
          svg('svg', {class: 'swatch', viewBox: '0 0 22 12', 'aria-hidden': 'true'},
            svg('line', {class: 'mark ' + kind, x1: 11, x2: 11, y1: 0, y2: 12})), el('span', {}, name)));
    }
    point() {
      if (!this.scale || this.series.length === 0) return;
      const {x, y, inner, low, high, top, bottom} = this.scale;
      const cursor = this.group.cursor;
      const nodes = [];
      this.series.forEach((s, i) => {
        const k = cursor === null ? lastFinite(s.values) : nearest(this.xs[i], cursor);
        const value = k >= 0 ? s.values[k] : null;
        this.values[i].textContent = value === null && k >= 0 && s.kind !== 'dots'
          ? 'not finite' : this.options.format(value);
        if (cursor !== null && finite(value) && value <= top && value >= bottom) {
          nodes.push(svg('circle', {
            cx: x(this.xs[i][k]), cy: y(value), r: 4, style: 'fill:' + s.colour,
          }));
        }
      });
      if (cursor === null || cursor < low || cursor > high) {
        this.overlay.replaceChildren();
        return;
      }
      const at = x(cursor), text = this.group.axis().format(cursor);
      const half = text.length * 3.7 + 6;
      const middle = Math.min(Math.max(at, inner.left + half), inner.right - half);
      this.overlay.replaceChildren(
        svg('line', {x1: at, x2: at, y1: inner.top, y2: inner.bottom}), ...nodes,
        svg('rect', {x: middle - half, y: inner.bottom + 4, width: 2 * half, height: 19, rx: 4}),
        svg('text', {x: middle, y: inner.bottom + 18, 'text-anchor': 'middle'}, text));
    }
    // To the next point of the curve with the most points, at least a pixel on.
    move(direction, far) {
      const {low, high, inner} = this.scale;
      const longest = this.xs.reduce((a, b) => (b.length > a.length ? b : a), []);
      const pixel = (high - low) / (inner.right - inner.left);
      const from = this.group.cursor === null ? (direction > 0 ? low - pixel : high + pixel)
        : this.group.cursor;
      const wanted = from + direction * pixel * (far ? 40 : 1);
      let k = direction > 0 ? find(longest, wanted) : find(longest, wanted + pixel * 1e-6) - 1;
      k = Math.min(Math.max(k, 0), longest.length - 1);
      this.group.point(Math.min(Math.max(longest[k], low), high));
      this.say();
    }
    say() {
      clearTimeout(this.group.timer);
      this.group.timer = setTimeout(() => {
        const values = this.series.map((s, i) => `${s.name} ${this.values[i].textContent}`);
        const axis = this.group.axis();
        this.group.live.textContent =
          `${axis.label} ${axis.format(this.group.cursor)}: ${values.join(', ')}`;
      }, 150);
    }
    key(event) {
      const go = (x) => { this.group.point(x); this.say(); };
      kiln.keys(event, this.group, {
        ArrowLeft: () => this.move(-1, event.shiftKey),
        ArrowRight: () => this.move(1, event.shiftKey),
        Home: () => go(this.scale.low), End: () => go(this.scale.high),
        l: () => { if (!this.options.noLog) this.setLog(!this.log); },
      });
    }

    listen() {
      let from = null;
      const at = (event) => {
        const {inner, back} = this.scale;
        const px = event.clientX - this.plot.getBoundingClientRect().left;
        return back(Math.min(Math.max(px, inner.left), inner.right));
      };
      this.plot.addEventListener('pointerdown', (event) => {
        if (!this.scale || event.button !== 0) return;
        this.group.point(at(event));
        if (event.pointerType !== 'touch') {
          from = event;
          this.plot.setPointerCapture(event.pointerId);
        }
      });
      this.plot.addEventListener('pointermove', (event) => {
        if (!this.scale) return;
        const x = at(event);
        this.group.point(x);
        if (from !== null) this.select(at(from), x);
      });
      this.plot.addEventListener('pointerup', (event) => {
        if (from !== null && Math.abs(event.clientX - from.clientX) > 5) {
          const ends = [at(from), at(event)].sort((a, b) => a - b);
          this.group.zoom(ends[0], ends[1]);
        }
        from = null;
        this.select(0, 0);
      });
      this.plot.addEventListener('pointercancel', () => { from = null; this.select(0, 0); });
      this.plot.addEventListener('pointerleave', (event) => {
        if (from === null && event.pointerType !== 'touch') this.group.point(null);
      });
      this.plot.addEventListener('dblclick', () => this.group.whole());
    }
    select(a, b) {
      const {x, inner} = this.scale;
      const left = Math.min(x(a), x(b));
      fill(this.selection, {
        x: left, width: Math.abs(x(b) - x(a)), height: a === b ? 0 : inner.bottom - inner.top,
      }, []);
    }
  }
  Chart.count = 0;

  // Index of the point nearest to x; -1: there is none.
  function nearest(list, x) {
    const k = find(list, x);
    if (list.length === 0) return -1;
    if (k === 0) return 0;
    return k === list.length || x - list[k - 1] < list[k] - x ? k - 1 : k;
  }
  function lastFinite(list) {
    for (let i = list.length - 1; i >= 0; i--) if (finite(list[i])) return i;
    return list.length - 1;
  }
  function timeTicks(low, high, count) {
    const units = [0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 86400];
    const step = units.find((unit) => (high - low) / unit <= Math.max(count, 2));
    if (!step) return ticks(low, high, count);
    const out = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) out.push(i * step);
    return out;
  }
  kiln.find = find;
  kiln.along = along;
  kiln.nearest = nearest;

  // A short piece of a curve as it is drawn.
  kiln.swatch = function (s) {
    const line = svg('line', {
      x1: 1, x2: 21, y1: 6, y2: 6, class: 'curve ' + (s.kind || 'line'),
      style: 'stroke:' + s.colour, 'stroke-dasharray': s.dash || null,
    });
    const dot = svg('circle', {cx: 11, cy: 6, r: 3.5, class: 'dot', style: 'fill:' + s.colour});
    return svg('svg', {class: 'swatch', viewBox: '0 0 22 12', 'aria-hidden': 'true'},
      s.kind === 'dots' ? (s.line ? [line, dot] : dot) : line);
  };

  kiln.chart = (parent, options, group) => new Chart(parent, options, group);
}());
