// SPDX-License-Identifier: MIT
//
// report.js: one or several runs as a page: what report.html shows, and the dashboard with live
// data. A run is the object of kiln_view_json (docs/formats.md, "A run as JSON").
//
//   const page = kiln.runs(root, runs);
//   page.refresh();       the objects have grown (series, time, summary): draw again
'use strict';

(function () {
  const {el} = kiln;
  const {grouped, short, small, bytes, time, loss, milliseconds} = kiln.format;

  const dashes = [null, '7 3', '2 3', '9 3 2 3', '4 4', '12 4', '1 4', '8 2 2 2'];
  const colour = (run) => `var(--run-${run.index % 8})`;
  const series = (run, key) => run.series[key] || {steps: [], values: []};

  // ---- curves ----------------------------------------------------------------------------------

  const charts = [
    {
      title: 'Loss', format: loss, tick: small, wide: true, log: false, outliers: true,
      curves: [
        {key: 'loss', name: 'train', kind: 'faint'},
        {key: 'smoothed', name: 'smoothed'},
        {key: 'val_loss', name: 'held-out', kind: 'dots', line: true, own: 'var(--held-out)'},
      ],
    },
    {title: 'Learning rate', format: small, zero: true, curves: [{key: 'lr', name: 'rate'}]},
    {title: 'Gradient norm', format: small, log: true, outliers: true,
      curves: [{key: 'grad_norm', name: 'norm'}]},
    {title: 'Throughput', format: (n) => short(n) + ' tok/s', tick: short, zero: true, most: true,
      curves: [{key: 'tokens_per_s', name: 'tokens a second'}]},
    {title: 'Time of a step', format: milliseconds, tick: milliseconds, zero: true, outliers: true,
      curves: [{key: 'ms', name: 'step'}]},
    {title: 'Loss scale', format: short, log: true, curves: [{key: 'loss_scale', name: 'scale'}]},
  ];
  function curvesOf(chart, runs) {
    const alone = runs.length === 1;
    return chart.curves.flatMap((curve) => runs.map((run) => ({
      ...series(run, curve.key), axis: run.axis, kind: curve.kind, line: curve.line,
      name: alone ? curve.name : `${run.name} ${curve.name}`,
      label: alone ? curve.name : chart.curves.length > 1 ? `${run.name}, ${curve.name}` : run.name,
      colour: alone && curve.own ? curve.own : colour(run), dash: alone ? null : dashes[run.index % 8],
    }))).filter((s) => s.values.some((v) => Number.isFinite(v)) || s.kind === 'faint' && s.steps.length > 0);
  }
  function marksOf(runs) {
    return runs.flatMap((run) => [
      ...run.marks.restarts.map((step) => ({step, kind: 'restart', text: `${run.name}: another process from step ${step}`})),
      ...run.marks.skipped.map((step) => ({step, kind: 'skipped', text: `${run.name}: step ${step} was skipped`})),
      ...(run.incidents || []).map((i) => ({step: i.step, kind: 'incident', text: `${run.name}: ${i.why} at step ${i.step}, ${i.action}`})),
    ].map((mark) => ({...mark, axis: run.axis})));
  }

  function toolbar(group) {
    const choice = (mode, name) => el('button', {
      type: 'button', 'aria-pressed': String(mode === 'step'), click: (event) => {
        event.target.parentNode.querySelectorAll('button').forEach((b) => b.setAttribute('aria-pressed', String(b === event.target)));
        group.setMode(mode);
      },
    }, name);
    return el('div', {class: 'toolbar', role: 'toolbar', 'aria-label': 'charts'},
      el('span', {class: 'buttons'}, choice('step', 'steps'), choice('tokens', 'tokens'), choice('seconds', 'time')),
      el('span', {class: 'buttons'},
        el('button', {type: 'button', title: 'nearer (+)', 'aria-label': 'zoom in', click: () => group.zoomBy(0.6)}, '+'),
        el('button', {type: 'button', title: 'farther (-)', 'aria-label': 'zoom out', click: () => group.zoomBy(1 / 0.6)}, '−'),
        el('button', {type: 'button', title: 'everything (0)', click: () => group.whole()}, 'all')),
      el('span', {class: 'hint'}, 'Drag to zoom, double-click for all. Keys: ← → cursor, + − zoom, 0 all, l log.'));
  }

  // ---- at a glance -----------------------------------------------------------------------------

  function tile(name, value, note) {
    return el('div', {class: 'tile'}, el('dt', {}, name),
      el('dd', {}, el('b', {}, value), note ? el('span', {}, note) : null));
  }
  function tiles(run) {
    const s = run.summary;
    const done = s.total > 0 && s.step >= s.total;
    const of = s.total > 0 ? ` of ${grouped(s.total)}` : '';
    return el('dl', {class: 'tiles'},
      tile('steps', grouped(s.step), of + (done ? ', done' : '')),
      tile('loss, smoothed', loss(s.smoothed), s.steps > 0 ? `${loss(s.first_loss)} at first` : ''),
      tile('best held-out', loss(s.best_val), s.best_val_step > 0 ? `after step ${grouped(s.best_val_step)}` : 'none yet'),
      tile('throughput', short(s.tokens_per_s) + ' tok/s', `${time(s.step_s)} a step`),
      tile('time', time(s.seconds), done || s.left_s === null ? `${short(s.tokens)} tokens` : `${time(s.left_s)} to go`),
      tile('peak memory', s.peak_bytes > 0 ? bytes(s.peak_bytes) : '–',
        run.plan ? `${bytes(run.plan.memory_bytes.total)} planned` : ''));
  }
  function comparison(runs, toggle) {
    const head = ['run', 'step', 'loss', 'best held-out', 'tok/s', 'a step', 'time', 'peak memory'];
    const row = (run) => {
      const s = run.summary;
      return el('tr', {},
        el('th', {scope: 'row'}, el('label', {},
          el('input', {type: 'checkbox', checked: true, change: (event) => toggle(run, event.target.checked)}),
          kiln.swatch({colour: colour(run), dash: dashes[run.index % 8]}), el('span', {}, run.name))),
        [grouped(s.step), loss(s.smoothed), loss(s.best_val), short(s.tokens_per_s), time(s.step_s),
          time(s.seconds), bytes(s.peak_bytes)].map((text) => el('td', {}, text)));
    };
    return el('div', {class: 'card scroll', tabindex: 0, role: 'region', 'aria-label': 'runs'},
      el('table', {class: 'runs'}, el('thead', {}, el('tr', {}, head.map((h) => el('th', {scope: 'col'}, h)))),
        el('tbody', {}, runs.map(row))));
  }

  // ---- predicted beside measured -----------------------------------------------------------------

  function prediction(run) {
    const lines = [
      ['a step', 'time_s', 'step', time], ['computing', 'time_s', 'compute', time],
      ['compiling', 'time_s', 'compile', time], ['waiting for compiles', 'time_s', 'stall', time],
      ['restarts', 'time_s', 'restart', time], ['memory', 'memory_bytes', 'total', bytes],
    ];
    const rows = lines.map(([name, group, key, format]) => {
      const planned = run.plan ? run.plan[group][key] : null, measured = run.measured[group][key];
      const ratio = planned > 0 && measured > 0 ? measured / planned : null;
      if (!(planned > 0) && !(measured > 0)) return null;
      return el('tr', {}, el('th', {scope: 'row'}, name), el('td', {}, format(planned ?? NaN)),
        el('td', {}, format(measured ?? NaN)),
        el('td', {class: ratio && (ratio > 1.25 || ratio < 0.8) ? 'off' : ''},
          ratio ? (ratio >= 1 ? '+' : '−') + Math.abs((ratio - 1) * 100).toFixed(ratio > 0.9 && ratio < 1.1 ? 1 : 0) + ' %' : ''));
    });
    return el('section', {class: 'card'}, el('h3', {}, run.alone ? 'Predicted beside measured' : 'Predicted, measured: ' + run.name),
      el('div', {class: 'scroll'}, el('table', {}, el('thead', {}, el('tr', {}, ['', 'planned', 'measured', 'difference'].map((h) => el('th', {scope: 'col'}, h)))),
        el('tbody', {}, rows))));
  }

  // ---- samples -----------------------------------------------------------------------------------

  function samples(parent, runs) {
    const steps = [...new Set(runs.flatMap((run) => run.samples.map((s) => s.step)))].sort((a, b) => a - b);
    if (steps.length === 0) return;
    const texts = runs.filter((run) => run.samples.length > 0).map((run) => ({
      run, node: el('blockquote', {class: 'sample', tabindex: 0}),
      head: el('h4', {}),
    }));
    const show = (i) => {
      slider.value = String(i);
      slider.setAttribute('aria-valuetext', 'after step ' + grouped(steps[i]));
      label.textContent = 'after step ' + grouped(steps[i]);
      for (const {run, node, head} of texts) {
        const k = kiln.nearest(run.samples.map((s) => s.step), steps[i]);
        node.textContent = run.samples[k].text;
        head.textContent = run.alone ? '' : `${run.name}, after step ${grouped(run.samples[k].step)}`;
        head.hidden = run.alone;
      }
    };
    const label = el('output', {});
    const slider = el('input', {
      type: 'range', min: 0, max: steps.length - 1, step: 1, 'aria-label': 'which sample',
      input: (event) => show(Number(event.target.value)),
    });
    const by = (n) => show(Math.min(Math.max(Number(slider.value) + n, 0), steps.length - 1));
    const all = runs.reduce((n, run) => n + (run.samples_all || 0), 0);
    const shown = runs.reduce((n, run) => n + run.samples.length, 0);
    parent.append(el('section', {class: 'card samples wide'},
      el('h3', {}, 'Samples over time'),
      el('div', {class: 'slide'},
        el('button', {type: 'button', 'aria-label': 'earlier sample', click: () => by(-1)}, '‹'), slider,
        el('button', {type: 'button', 'aria-label': 'later sample', click: () => by(1)}, '›'), label),
      el('div', {class: 'columns'}, texts.map(({node, head}) => el('div', {}, head, node))),
      all > shown ? el('p', {class: 'note'}, `${shown} of ${all} samples, evenly spread; all are in samples.jsonl.`) : null));
    show(steps.length - 1);
  }

  // ---- settings ----------------------------------------------------------------------------------

  const origins = {
    flag: 'given', minutes: 'chosen for --minutes', model: 'of the model', machine: 'of this machine',
    default: 'default', run: 'of the run',
  };
  function settings(parent, runs) {
    const with_them = runs.filter((run) => run.settings.length > 0);
    if (with_them.length === 0) return;
    const flags = with_them[0].settings.map((s) => s.flag);
    const value = (run, flag) => run.settings.find((s) => s.flag === flag) || {value: '', origin: ''};
    const rows = flags.map((flag) => {
      const all = with_them.map((run) => value(run, flag));
      const differs = all.some((s) => s.value !== all[0].value);
      return {
        flag, differs, set: all.some((s) => s.origin !== 'default'),
        node: el('tr', {class: differs ? 'differs' : ''}, el('th', {scope: 'row'}, flag),
          all.map((s) => el('td', {class: 'value'}, s.value === '' ? '–' : s.value)),
          el('td', {class: 'origin ' + all[0].origin}, origins[all[0].origin] || all[0].origin)),
      };
    });
    const several = with_them.length > 1;
    let only = several, text = '';
    const apply = () => rows.forEach((row) => {
      const wanted = several ? row.differs : row.set;
      row.node.hidden = (only && !wanted) || !row.node.textContent.toLowerCase().includes(text);
    });
    const box = el('label', {class: 'check'},
      el('input', {type: 'checkbox', checked: only, change: (event) => { only = event.target.checked; apply(); }}),
      several ? 'only what differs' : 'only what is no default');
    const find = el('input', {
      type: 'search', placeholder: 'find a setting', 'aria-label': 'find a setting',
      input: (event) => { text = event.target.value.toLowerCase(); apply(); },
    });
    const head = ['setting', ...(several ? with_them.map((run) => run.name) : ['value']), 'where from'];
    parent.append(el('section', {class: 'card settings wide'}, el('h3', {}, 'Settings'),
      el('div', {class: 'toolbar'}, find, box),
      el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'settings'},
        el('table', {}, el('thead', {}, el('tr', {}, head.map((h) => el('th', {scope: 'col'}, h)))),
          el('tbody', {}, rows.map((row) => row.node))))));
    apply();
  }

  // ---- incidents, checkpoints ----------------------------------------------------------------------

  function incidents(parent, runs) {
    const all = runs.flatMap((run) => run.incidents.map((one) => ({run, ...one})));
    if (all.length === 0) return;
    const head = [...(runs.length > 1 ? ['run'] : []), 'step', 'what', 'done', 'loss', 'norm', 'z', 'first bad tensor', 'to explain'];
    parent.append(el('section', {class: 'card incidents wide'}, el('h3', {}, 'Incidents'),
      el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'incidents'}, el('table', {},
        el('thead', {}, el('tr', {}, head.map((h) => el('th', {scope: 'col'}, h)))),
        el('tbody', {}, all.map((one) => el('tr', {},
          runs.length > 1 ? el('td', {}, one.run.name) : null, el('th', {scope: 'row'}, grouped(one.step)),
          el('td', {}, one.why), el('td', {}, one.action), el('td', {}, loss(one.loss)), el('td', {}, small(one.grad_norm)),
          el('td', {}, small(one.z)), el('td', {}, one.tensor || '–'),
          el('td', {}, one.weights ? el('code', {}, `kiln explain ${one.run.folder}@${one.step}`) : 'its weights are gone'))))))));
  }
  function facts(run) {
    const s = run.summary, lines = [];
    if (run.checkpoints.length > 0) lines.push(`Checkpoints kept: ${run.checkpoints.map((n) => 'step ' + grouped(n)).join(', ')}.`);
    if (s.restarts > 0) lines.push(`${grouped(s.restarts)} process${s.restarts > 1 ? 'es' : ''} before the last one.`);
    if (s.skipped > 0) lines.push(`${grouped(s.skipped)} step${s.skipped > 1 ? 's' : ''} skipped: no update.`);
    if (s.ms.compile > 0) lines.push(`Kernels were compiled for ${milliseconds(s.ms.compile)}: ${milliseconds(s.ms.overlap)} of it hidden behind computing, ${milliseconds(s.ms.stall)} waited for.`);
    return lines.length > 0 ? el('p', {class: 'facts'}, (run.alone ? '' : run.name + ': ') + lines.join(' ')) : null;
  }

  // ---- the page ------------------------------------------------------------------------------------

  kiln.runs = function (root, runs) {
    const group = kiln.group();
    const hidden = new Set();
    runs.forEach((run, i) => { run.index = i; run.alone = runs.length === 1; });
    const shown = () => runs.filter((run) => !hidden.has(run));
    const glance = el('div', {});
    const grid = el('div', {class: 'grid-of-charts'});
    const rest = el('div', {class: 'grid-of-charts'});
    const made = charts.map((chart) => ({
      chart, drawn: kiln.chart(grid, {...chart, marks: () => marksOf(shown())}, group),
    }));
    const stacks = runs.map((run) => ({run, drawn: kiln.stack(grid, run, group)}));
    const empty = el('p', {class: 'note'}, 'No step is done yet.');
    const look = () => {
      glance.replaceChildren(runs.length === 1 ? tiles(runs[0]) : comparison(runs, toggle), ...runs.map(facts).filter(Boolean));
      empty.hidden = runs.some((run) => run.summary.steps > 0);
    };
    const curves = () => {
      made.forEach(({chart, drawn}) => drawn.set(curvesOf(chart, shown())));
      stacks.forEach(({run, drawn}) => { drawn.set(run); drawn.figure.hidden = drawn.figure.hidden || hidden.has(run); });
      group.draw();
    };
    function toggle(run, on) {
      if (on) hidden.delete(run); else hidden.add(run);
      curves();
    }
    root.replaceChildren(glance, empty, toolbar(group), grid, rest, group.live);
    look();
    curves();
    runs.filter((run) => run.timeline && run.timeline.spans.length > 0).forEach((run) => kiln.timeline(rest, run));
    kiln.memory(rest, runs);
    runs.forEach((run) => rest.append(prediction(run)));
    samples(rest, runs);
    incidents(rest, runs);
    settings(rest, runs);
    return {group, refresh() { look(); curves(); }};
  };

  // ---- report.html ---------------------------------------------------------------------------------

  const data = document.getElementById('kiln-data');
  if (data) {
    const runs = JSON.parse(data.textContent);
    if (new Set(runs.map((run) => run.name)).size < runs.length) {
      runs.forEach((run) => { run.name = run.folder; });
    }
    const names = runs.map((run) => run.name).join(', ');
    document.title = `${names}: kiln`;
    document.getElementById('title').textContent = names;
    kiln.runs(document.getElementById('view'), runs);
  }
}());
