// SPDX-License-Identifier: MIT
//
// bars.js: what curves cannot show: time by part (stacked columns), the timeline of the first
// steps, memory by part. Stands on charts.js.
'use strict';

(function () {
  const {el, svg} = kiln;
  const {time, bytes, grouped, milliseconds} = kiln.format;

  // The parts of a step, in the order they are stacked.
  kiln.parts = [
    {key: 'device', name: 'device', help: 'evaluating kernels'},
    {key: 'host', name: 'host', help: 'what the host computes'},
    {key: 'dw_wait', name: 'wait for dW', help: 'weight gradients that are not there yet'},
    {key: 'io', name: 'surfaces', help: 'bytes moved to and from the device'},
    {key: 'update', name: 'update', help: 'norm, optimizer, packing'},
    {key: 'stall', name: 'stall', help: 'nothing is computed: kernels are being compiled'},
    {key: 'restart', name: 'restart', help: 'processes replaced'},
  ];
  const part = (key) => `var(--part-${key.replace('_', '-')})`;

  function box(colour, name) {
    return svg('svg', {class: 'swatch', viewBox: '0 0 22 12', 'aria-hidden': 'true'},
      svg('rect', {x: 4, y: 0, width: 14, height: 12, rx: 2, class: name, style: 'fill:' + colour}));
  }

  // ---- time by part ----------------------------------------------------------------------------

  class Stack {
    constructor(parent, run, group) {
      this.run = run;
      this.group = group;
      this.xs = [];
      this.svg = svg('svg', {role: 'img', class: 'drawing'});
      this.plot = el('div', {
        class: 'plot low', tabindex: 0, role: 'group',
        'aria-label': 'Time by part: chart; arrows move the cursor, plus and minus zoom, 0 shows all',
        keydown: (event) => this.key(event), blur: () => group.point(null),
        pointermove: (event) => this.hover(event), pointerdown: (event) => this.hover(event),
        pointerleave: () => group.point(null), dblclick: () => group.whole(),
      }, this.svg);
      this.legend = el('div', {class: 'legend'});
      this.figure = el('figure', {class: 'card chart'},
        el('figcaption', {}, el('h3', {}, run.alone ? 'Time by part' : 'Time by part: ' + run.name)),
        this.legend, this.plot);
      parent.append(this.figure);
      group.charts.push(this);
      new ResizeObserver(() => group.draw()).observe(this.plot);
      this.set(run);
    }
    set(run) {
      this.run = run;
      const all = run.time;
      this.shown = kiln.parts.filter((p) => (all[p.key] || []).some((ms) => ms > 0));
      this.values = this.shown.map(() => el('output', {}));
      this.legend.replaceChildren(...this.shown.map((p, i) => el('span', {class: 'item', title: p.help},
        box(part(p.key), p.key), el('span', {}, p.name), this.values[i])));
      this.figure.hidden = this.shown.length === 0;
      this.map();
    }
    map() { this.xs = [kiln.along(this.run.time.steps, this.run.axis, this.group.mode)]; }

    draw() {
      const width = this.plot.clientWidth, height = this.plot.clientHeight;
      const steps = this.xs[0], all = this.run.time;
      if (steps.length === 0 || width === 0) return;
      const [low, high] = this.group.range();
      const inner = {left: 54, right: width - 14, top: 10, bottom: height - 26};
      const x = (v) => inner.left + (v - low) / (high - low || 1) * (inner.right - inner.left);
      const sums = steps.map((_, i) => this.shown.reduce((sum, p) => sum + all[p.key][i], 0));
      const seen = sums.filter((_, i) => steps[i] >= low && (i === 0 || steps[i - 1] <= high));
      const top = limit(seen) * 1.06 || 1;
      const y = (v) => inner.bottom - Math.min(v / top, 1) * (inner.bottom - inner.top);
      this.scale = {inner, low, high, x};
      const grid = svg('g', {class: 'grid'});
      for (const value of kiln.ticks(0, top, 4)) {
        grid.append(svg('line', {x1: inner.left, x2: inner.right, y1: y(value), y2: y(value)}),
          svg('text', {x: inner.left - 8, y: y(value) + 4, 'text-anchor': 'end'}, milliseconds(value)));
      }
      for (const value of kiln.ticks(low, high, width / 90)) {
        if (x(value) <= inner.right - 20) {
          grid.append(svg('text', {x: x(value), y: inner.bottom + 18, 'text-anchor': 'middle'},
            this.group.axis().tick(value)));
        }
      }
      const paths = this.shown.map(() => '');
      steps.forEach((step, i) => {
        const from = i > 0 ? steps[i - 1] : Math.min(low, step - (steps[1] - step || 1));
        if (step < low || from > high) return;
        const left = Math.max(x(from), inner.left), right = Math.min(x(step), inner.right);
        let below = 0;
        this.shown.forEach((p, k) => {
          const ms = all[p.key][i];
          const bottom = y(below), up = y(below + ms);
          below += ms;
          if (ms > 0) {
            paths[k] += `M${left.toFixed(1)} ${bottom.toFixed(1)}H${(right + 0.3).toFixed(1)}` +
              `V${up.toFixed(1)}H${left.toFixed(1)}Z`;
          }
        });
      });
      this.overlay = svg('g', {class: 'cursor'});
      this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
      this.svg.setAttribute('aria-label', this.words());
      this.svg.replaceChildren(grid, ...paths.map((d, k) =>
        svg('path', {d, class: this.shown[k].key, style: 'fill:' + part(this.shown[k].key)})),
      this.overlay);
      this.point();
    }
    words() {
      const ms = this.run.summary.ms;
      const shares = this.shown.map((p) => `${p.name} ${percent(ms[p.key] / ms.all)}`);
      return `Time by part, of all steps: ${shares.join(', ')}.`;
    }
    point() {
      if (!this.scale) return;
      const {inner, low, high, x} = this.scale, cursor = this.group.cursor;
      const ms = this.run.summary.ms;
      const i = cursor === null ? -1 : Math.min(kiln.find(this.xs[0], cursor), this.xs[0].length - 1);
      this.shown.forEach((p, k) => {
        this.values[k].textContent = i < 0 ? percent(ms[p.key] / ms.all)
          : milliseconds(this.run.time[p.key][i]);
      });
      this.overlay.replaceChildren(...(cursor === null || cursor < low || cursor > high ? []
        : [svg('line', {x1: x(cursor), x2: x(cursor), y1: inner.top, y2: inner.bottom})]));
    }
    hover(event) {
      if (!this.scale) return;
      const {inner, low, high} = this.scale;
      const px = event.clientX - this.plot.getBoundingClientRect().left;
      const share = (px - inner.left) / (inner.right - inner.left);
      this.group.point(low + Math.min(Math.max(share, 0), 1) * (high - low));
    }
    key(event) {
      const move = (by) => {
        const {low, high} = this.scale;
        const from = this.group.cursor === null ? (by > 0 ? low : high) : this.group.cursor;
        this.group.point(Math.min(Math.max(from + by * (high - low) / 100, low), high));
        this.group.live.textContent =
          this.shown.map((p, k) => `${p.name} ${this.values[k].textContent}`).join(', ');
      };
      kiln.keys(event, this.group, {
        ArrowLeft: () => move(event.shiftKey ? -10 : -1),
        ArrowRight: () => move(event.shiftKey ? 10 : 1),
      });
    }
  }
  // The greatest, unless it stands far above all others: that one is cut.
  function limit(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const most = sorted[sorted.length - 1] || 0;
    const usual = sorted[Math.floor(sorted.length * 0.9)] || 0;
    return most > 4 * usual && usual > 0 ? usual * 2 : most;
  }
  const percent = (share) => (!(share > 0) ? '0 %'
    : share < 0.001 ? '<0.1 %' : (share * 100).toFixed(share < 0.0995 ? 1 : 0) + ' %');
  kiln.percent = percent;
  kiln.stack = (parent, run, group) => new Stack(parent, run, group);

  // ---- the timeline ----------------------------------------------------------------------------

  const kinds = {
    evaluate: 'device', stall: 'stall', compile: 'compile', dw: 'host', 'dw wait': 'dw_wait',
    norm: 'update', update: 'update', snapshot: 'io', surface: 'io', checkpoint: 'checkpoint',
    restart: 'restart', piece: 'device',
  };
  const order = ['device', 'compiler', 'host queue', 'optimizer', 'I/O', 'process'];

  // [track, kind, name, row, start, length, step, generation, layer, spans]
  function readSpans(timeline) {
    return timeline.spans.map((s) => ({
      track: timeline.words[s[0]], kind: timeline.words[s[1]], name: timeline.words[s[2]],
      row: s[3], start: s[4] / 1e6, end: (s[4] + s[5]) / 1e6, step: s[6], generation: s[7],
      layer: s[8], count: s[9],
    }));
  }

  class Timeline {
    constructor(parent, run) {
      this.spans = readSpans(run.timeline);
      this.end = this.spans.reduce((most, s) => Math.max(most, s.end), 0) || 1;
      this.view = [0, this.end];
      this.at = null;
      this.rows = [];
      for (const track of order) {
        const numbers = new Set(this.spans.filter((s) => s.track === track).map((s) => s.row));
        [...numbers].sort((a, b) => a - b).forEach((row, i) => this.rows.push({
          track, row, name: i === 0 ? track : '',
          spans: this.spans.filter((s) => s.track === track && s.row === row)
            .sort((a, b) => a.start - b.start),
        }));
      }
      this.svg = svg('svg', {role: 'img', class: 'drawing'});
      this.says = el('p', {class: 'says', 'aria-live': 'polite'}, 'Point at a span, or move with the arrow keys.');
      this.plot = el('div', {
        class: 'plot timeline', tabindex: 0, role: 'group',
        'aria-label': 'Timeline: chart; arrows move, plus and minus zoom, 0 shows all',
        keydown: (event) => this.key(event),
        pointermove: (event) => this.hover(event), pointerdown: (event) => this.hold(event),
        pointerup: (event) => this.release(event), dblclick: () => this.look(0, this.end),
      }, this.svg);
      this.plot.style.height = this.rows.length * 26 + 40 + 'px';
      const used = [...new Set(this.spans.map((s) => s.kind))];
      this.figure = el('figure', {class: 'card chart wide'},
        el('figcaption', {},
          el('h3', {}, run.alone ? 'Timeline of the first steps' : 'Timeline: ' + run.name),
          el('span', {class: 'buttons'},
            el('button', {type: 'button', title: 'nearer (+)', click: () => this.zoom(0.5)}, '+'),
            el('button', {type: 'button', title: 'farther (-)', click: () => this.zoom(2)}, '−'),
            el('button', {type: 'button', title: 'all (0)', click: () => this.look(0, this.end)}, 'all'))),
        el('div', {class: 'legend'}, used.map((kind) => el('span', {class: 'item'},
          box(part(kinds[kind] || 'host'), kind), el('span', {}, kind)))),
        this.plot, this.says);
      parent.append(this.figure);
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }
    look(low, high) {
      const least = this.end / 1e5;
      const length = Math.min(Math.max(high - low, least), this.end);
      const from = Math.min(Math.max(low, 0), this.end - length);
      this.view = [from, from + length];
      this.draw();
    }
    zoom(factor) {
      const [low, high] = this.view;
      const middle = this.at !== null && this.at > low && this.at < high ? this.at : (low + high) / 2;
      this.look(middle - (middle - low) * factor, middle + (high - middle) * factor);
    }
    draw() {
      const width = this.plot.clientWidth, height = this.plot.clientHeight;
      if (width === 0) return;
      const left = width < 520 ? 76 : 86, right = width - 10, [low, high] = this.view;
      const x = (s) => left + (s - low) / (high - low) * (right - left);
      this.scale = {x, left, right};
      const nodes = [];
      this.rows.forEach((row, i) => {
        const top = 6 + i * 26;
        nodes.push(svg('rect', {class: 'lane', x: left, y: top, width: right - left, height: 20}));
        nodes.push(svg('text', {class: 'lane-name', x: left - 8, y: top + 14, 'text-anchor': 'end'}, row.name));
        nodes.push(...this.lane(row, top, x, left, right));
      });
      const bottom = 6 + this.rows.length * 26;
      const axis = svg('g', {class: 'grid'});
      for (const value of kiln.ticks(low, high, width / 110)) {
        axis.append(svg('line', {class: 'tick', x1: x(value), x2: x(value), y1: 2, y2: bottom}),
          svg('text', {x: x(value), y: bottom + 16, 'text-anchor': x(value) > right - 24 ? 'end' : 'middle'}, time(value)));
      }
      this.overlay = svg('g', {class: 'cursor'});
      this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
      this.svg.setAttribute('aria-label', this.words());
      this.svg.replaceChildren(axis, ...nodes, this.overlay);
      this.mark();
    }
    // Spans of a kind and of even or odd weights are one path: thousands are drawn at once.
    lane(row, top, x, left, right) {
      const [low, high] = this.view, paths = new Map(), labels = [];
      for (const s of row.spans) {
        if (s.end < low || s.start > high) continue;
        const from = Math.max(x(s.start), left), to = Math.min(Math.max(x(s.end), from + 0.7), right);
        const key = `${s.kind}|${s.generation >= 0 && s.generation % 2 === 1 ? 'odd' : 'even'}`;
        const d = `M${from.toFixed(1)} ${top}H${to.toFixed(1)}V${top + 20}H${from.toFixed(1)}Z`;
        paths.set(key, (paths.get(key) || '') + d);
        const text = s.generation >= 0 ? `${s.name} g${s.generation}` : s.name;
        if (to - from > text.length * 6.6 + 8 && labels.length < 200) {
          labels.push(svg('text', {class: 'span-name', x: from + 5, y: top + 14}, text));
        }
      }
      return [...paths].map(([key, d]) => {
        const [kind, parity] = key.split('|');
        return svg('path', {d, class: `span ${parity}`, style: 'fill:' + part(kinds[kind] || 'host')});
      }).concat(labels);
    }
    words() {
      const sums = {};
      for (const s of this.spans) sums[s.kind] = (sums[s.kind] || 0) + s.end - s.start;
      const all = Object.entries(sums).map(([kind, s]) => `${kind} ${time(s)}`);
      return `Timeline over ${time(this.end)}, by kind: ${all.join(', ')}.`;
    }
    // What goes on at a time, in all rows.
    mark() {
      if (this.at === null || !this.scale) return;
      const {x, left, right} = this.scale, at = x(this.at);
      const on = this.rows.map((row) => row.spans.find((s) => s.start <= this.at && s.end >= this.at))
        .filter(Boolean);
      this.overlay.replaceChildren(...(at < left || at > right ? []
        : [svg('line', {x1: at, x2: at, y1: 2, y2: 6 + this.rows.length * 26})]));
      const words = on.map((s) => `${s.track}: ${s.name}` +
        `${s.count > 1 ? ` (${s.count} of them)` : ''}${s.layer >= 0 ? ` layer ${s.layer}` : ''}` +
        `${s.generation >= 0 ? `, generation ${s.generation}` : ''}, ${time(s.end - s.start)}`);
      const step = on.length > 0 ? `step ${grouped(on[0].step)}, ` : '';
      this.says.textContent = `${step}at ${time(this.at)}: ${words.join('; ') || 'nothing'}`;
    }
    back(event) {
      const {left, right} = this.scale, [low, high] = this.view;
      const px = event.clientX - this.plot.getBoundingClientRect().left;
      return low + Math.min(Math.max((px - left) / (right - left), 0), 1) * (high - low);
    }
    hover(event) {
      if (!this.scale) return;
      this.at = this.back(event);
      this.mark();
    }
    hold(event) {
      this.hover(event);
      this.from = event.pointerType !== 'touch' && event.button === 0 ? event : null;
    }
    release(event) {
      if (this.from && Math.abs(event.clientX - this.from.clientX) > 5) {
        const ends = [this.back(this.from), this.back(event)].sort((a, b) => a - b);
        this.look(ends[0], ends[1]);
      }
      this.from = null;
    }
    key(event) {
      const move = (direction) => {
        const [low, high] = this.view;
        const from = this.at === null ? low : this.at;
        this.at = Math.min(Math.max(from + direction * (high - low) / 200, 0), this.end);
        if (this.at < low || this.at > high) this.look(low + direction * (high - low) / 2, high + direction * (high - low) / 2);
        this.mark();
      };
      const group = {
        zoomBy: (factor) => this.zoom(factor), whole: () => this.look(0, this.end), point: () => {},
        pan: (share) => this.look(...this.view.map((v) => v + share * (this.view[1] - this.view[0]))),
      };
      kiln.keys(event, group, {
        ArrowLeft: () => move(event.shiftKey ? -10 : -1),
        ArrowRight: () => move(event.shiftKey ? 10 : 1),
      });
    }
  }
  kiln.timeline = (parent, run) => new Timeline(parent, run);

  // ---- memory ----------------------------------------------------------------------------------

  const memoryParts = [
    ['weights', 'weights'], ['moments', 'moments'], ['gradients', 'gradients'],
    ['kernels', 'packed weights, kernels'], ['snapshots', 'snapshots'], ['journal', 'journal'],
    ['activations_kept', 'activations kept'], ['activations_live', 'activations live'],
    ['workspace', 'workspace'], ['gpu', 'GPU buffers'], ['process', 'program'],
  ];
  // The plan's bar, part by part, above the measured peak, on one scale for all runs.
  kiln.memory = function (parent, runs) {
    const card = el('section', {class: 'card memory'}, el('h3', {}, 'Memory by part'));
    const most = Math.max(...runs.map((run) => Math.max(
      run.plan ? run.plan.memory_bytes.total : 0, run.measured.memory_bytes.total)), 1);
    for (const run of runs) {
      const planned = run.plan ? run.plan.memory_bytes : null;
      const measured = run.measured.memory_bytes.total;
      if (runs.length > 1) card.append(el('h4', {}, run.name));
      const sum = planned ? memoryParts.reduce((n, [key]) => n + planned[key], 0) : 0;
      // A state larger than the memory is not all there at once: the parts share what is.
      const scale = planned && sum > 0 ? Math.min(planned.total / sum, 1) / most : 0;
      const bar = (label, value, children) => el('div', {class: 'bar'},
        el('span', {class: 'bar-name'}, label), el('span', {class: 'bar-track'}, children),
        el('span', {class: 'bar-value'}, value));
      if (planned) {
        card.append(bar('planned', bytes(planned.total), memoryParts.map(([key, name], i) =>
          planned[key] > 0 ? el('span', {
            class: 'bar-part', title: `${name}: ${bytes(planned[key])}`,
            style: `width:${planned[key] * scale * 100}%;background:var(--memory-${i})`,
          }) : null)));
      }
      card.append(bar('measured peak', measured > 0 ? bytes(measured) : '–', el('span', {
        class: 'bar-part whole', style: `width:${measured / most * 100}%`,
      })));
      if (planned) {
        card.append(el('ul', {class: 'parts'}, memoryParts.map(([key, name], i) =>
          planned[key] > 0 ? el('li', {}, box(`var(--memory-${i})`, ''),
            el('span', {}, name), el('b', {}, bytes(planned[key]))) : null)));
        card.append(el('p', {class: 'note'}, `The state file takes ${bytes(planned.state_file)} of disk.`));
      } else {
        card.append(el('p', {class: 'note'}, 'This run was begun by a kiln that did not note its plan.'));
      }
    }
    parent.append(card);
  };
}());
