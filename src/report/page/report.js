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
  const {grouped, short, small, bytes, time, loss, milliseconds, times} = kiln.format;

  const dashes = [null, '7 3', '2 3', '9 3 2 3', '4 4', '12 4', '1 4', '8 2 2 2'];
  const colour = (run) => `var(--run-${run.index % 8})`;
  const series = (run, key) => run.series[key] || {steps: [], values: []};

  // ---- curves ----------------------------------------------------------------------------------

  const charts = [
    {
      title: 'Loss', format: loss, tick: small, wide: true, log: false, outliers: true, start: true,
      curves: [
        {key: 'loss', name: 'train', kind: 'faint'},
        {key: 'smoothed', name: 'smoothed'},
        {key: 'val_loss', name: 'held-out', kind: 'dots', line: true, own: 'var(--held-out)'},
      ],
    },
    {title: 'Learning rate', format: small, zero: true, curves: [{key: 'lr', name: 'rate'}]},
    {title: 'Gradient norm', format: small, log: true, outliers: true,
      curves: [{key: 'grad_norm', name: 'norm', mean: 'grad_norm_mean'}]},
    {title: 'Throughput', format: (n) => short(n) + ' tok/s', tick: short, zero: true, most: true,
      curves: [{key: 'tokens_per_s', name: 'tokens a second', mean: 'tokens_per_s_mean'}]},
    {title: 'Time of a step', format: milliseconds, tick: milliseconds, zero: true, outliers: true,
      curves: [{key: 'ms', name: 'step', mean: 'ms_mean'}]},
    {title: 'Loss scale', format: short, log: true, onlyIfItChanges: true, curves: [{key: 'loss_scale', name: 'scale'}]},
  ];
  // Curves of a chart: of one that goes up and down with each step the mean stands before it.
  function curvesOf(chart, runs) {
    const alone = runs.length === 1;
    const all = chart.curves.flatMap((curve) => runs.flatMap((run) => {
      const mean = curve.mean && run.series[curve.mean];
      const one = (key, name, kind) => ({
        ...series(run, key), axis: run.axis, kind, line: curve.line,
        name: alone ? name : `${run.name} ${name}`,
        quiet: !alone && kind === 'faint',
        label: alone ? name : chart.curves.length > 1 || curve.mean ? `${run.name}, ${name}` : run.name,
        colour: alone && curve.own ? curve.own : colour(run), dash: alone ? null : dashes[run.index % 8],
      });
      return mean ? [one(curve.key, curve.name, 'faint'), one(curve.mean, 'mean', 'line')]
        : [one(curve.key, curve.name, curve.kind)];
    }));
    // A value that never changes is no curve (the loss scale, mostly).
    const still = chart.onlyIfItChanges && all.every((s) => s.values.every((v) => v === s.values[0]));
    return still ? [] : all.filter((s) => s.values.some((v) => Number.isFinite(v)) ||
      (s.kind === 'faint' && s.steps.length > 0));
  }
  function marksOf(runs) {
    // A run that changes its process with every window has no place for marks.
    const few = (list) => (list.length <= 16 ? list : []);
    return runs.flatMap((run) => [
      ...few(run.marks.restarts).map((step) => ({step, kind: 'restart', text: `${run.name}: another process from step ${step}`})),
      ...few(run.marks.skipped).map((step) => ({step, kind: 'skipped', text: `${run.name}: step ${step} was skipped`})),
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
  // The incident that ended a run: the step that was to come next.
  const failure = (run) => (run.incidents || []).find((i) => i.action === 'stopped' && i.step === run.summary.step + 1);
  kiln.failure = failure;
  const resume = (run) => el('code', {}, `kiln train --resume ${run.folder}`);
  // How it stands, where it does not run: live is the dashboard's word, false where nobody trains it.
  function standing(run) {
    const s = run.summary, why = failure(run);
    if (run.live || (s.total > 0 && s.step >= s.total)) return null;
    if (why) {
      return el('p', {class: 'facts failed'}, run.alone ? '' : run.name + ': ',
        el('b', {}, `Failed: ${why.why} at step ${grouped(why.step)}.`), ' When its cause is mended, ', resume(run), ' goes on.');
    }
    return run.live === false && s.total > s.step
      ? el('p', {class: 'facts'}, `${run.alone ? 'Stopped' : run.name + ': stopped'}; ${grouped(s.total - s.step)} steps are left. `, resume(run), ' goes on.')
      : null;
  }
  function tiles(run) {
    const s = run.summary;
    const done = s.total > 0 && s.step >= s.total;
    const of = s.total > 0 ? ` of ${grouped(s.total)}` : '';
    return el('dl', {class: 'tiles'},
      tile('steps', grouped(s.step), of + (done ? ', done' : '')),
      tile('loss, smoothed', loss(s.smoothed), s.steps > 0 ? `${loss(s.first_loss)} at first` : ''),
      tile('best held-out', loss(s.best_val), s.best_val_step > 0 ? `after step ${grouped(s.best_val_step)}` : 'none yet'),
      tile('throughput', short(s.tokens_per_s) + ' tok/s', `${time(s.step_s)} a step (median)`),
      tile('time', time(s.seconds), done || s.left_s === null || run.live === false || failure(run) ? `${short(s.tokens)} tokens` : `${time(s.left_s)} to go`),
      tile('peak memory', s.peak_bytes > 0 ? bytes(s.peak_bytes) : '–',
        run.plan ? `${bytes(run.plan.memory_bytes.total)} planned` : ''));
  }
  function comparison(runs, toggle) {
    const head = ['run', 'step', 'loss, smoothed', 'best held-out', 'tok/s', 'a step (median)', 'time', 'peak memory'];
    const row = (run) => {
      const s = run.summary;
      return el('tr', {},
        el('th', {scope: 'row'}, el('label', {},
          toggle && el('input', {type: 'checkbox', checked: true, change: (event) => toggle(run, event.target.checked)}),
          kiln.swatch({colour: colour(run), dash: dashes[run.index % 8]}), el('span', {}, run.name))),
        [grouped(s.step), loss(s.smoothed), loss(s.best_val), short(s.tokens_per_s), time(s.step_s),
          time(s.seconds), bytes(s.peak_bytes)].map((text) => el('td', {}, text)));
    };
    return el('div', {class: 'card scroll', tabindex: 0, role: 'region', 'aria-label': 'runs'},
      el('table', {class: 'runs'}, el('thead', {}, el('tr', {}, head.map((h) => el('th', {scope: 'col'}, h)))),
        el('tbody', {}, runs.map(row))));
  }

  // ---- predicted beside measured -----------------------------------------------------------------

  const quantities = [
    ['a step', 'time_s', 'step', time], ['computing', 'time_s', 'compute', time],
    ['compiling', 'time_s', 'compile', time], ['waiting for compiles', 'time_s', 'stall', time],
    ['restarts', 'time_s', 'restart', time], ['memory', 'memory_bytes', 'total', bytes],
  ];
  function predictionRow(run, [name, group, key, format]) {
    const planned = run.plan ? run.plan[group][key] : NaN, measured = run.measured[group][key];
    if (!(planned > 0) && !(measured > 0)) return null;
    const ratio = planned > 0 && measured > 0 ? measured / planned : null;
    const by = ratio ? Math.abs(ratio - 1) * 100 : 0;
    const text = !ratio ? '' : ratio > 3 ? times(ratio) + ' times'
      : (ratio >= 1 ? '+' : '−') + by.toFixed(by < 9.95 ? 1 : 0) + ' %';
    return el('tr', {}, el('th', {scope: 'row'}, name), el('td', {'data-name': 'planned'}, format(planned)),
      el('td', {'data-name': 'measured'}, format(measured)),
      el('td', {'data-name': 'difference', class: by > 25 ? 'off' : ''}, text));
  }
  function predictions(parent, runs) {
    const head = ['', 'planned', 'measured', 'difference'].map((h) => el('th', {scope: 'col'}, h));
    parent.append(el('section', {class: 'card'}, el('h3', {}, 'Predicted beside measured'), runs.map((run) => [
      run.alone ? null : el('h4', {}, run.name),
      el('div', {class: 'scroll cards'}, el('table', {}, el('thead', {}, el('tr', {}, head.map((th) => th.cloneNode(true)))),
        el('tbody', {}, quantities.map((q) => predictionRow(run, q))))),
    ]).flat()));
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
      el('div', {class: 'scroll cards', tabindex: 0, role: 'region', 'aria-label': 'incidents'}, el('table', {},
        el('thead', {}, el('tr', {}, head.map((h) => el('th', {scope: 'col'}, h)))),
        el('tbody', {}, all.map((one) => el('tr', {},
          runs.length > 1 ? el('td', {'data-name': 'run'}, one.run.name) : null,
          el('th', {scope: 'row', 'data-name': 'step'}, grouped(one.step)),
          el('td', {'data-name': 'what'}, one.why), el('td', {'data-name': 'done'}, one.action),
          el('td', {'data-name': 'loss'}, loss(one.loss)), el('td', {'data-name': 'norm'}, small(one.grad_norm)),
          el('td', {'data-name': 'z'}, small(one.z)), el('td', {'data-name': 'first bad tensor'}, one.tensor || '–'),
          el('td', {'data-name': 'to explain'}, one.weights ? el('code', {}, `kiln explain ${one.run.folder}@${one.step}`) : 'its weights are gone'))))))));
  }
  function facts(run) {
    const s = run.summary, lines = [];
    if (run.checkpoints.length > 0) lines.push(`Checkpoints kept: ${run.checkpoints.map((n) => 'step ' + grouped(n)).join(', ')}.`);
    if (s.restarts > 0) lines.push(`${grouped(s.restarts)} process${s.restarts > 1 ? 'es' : ''} before the last one.`);
    if (s.skipped > 0) lines.push(`${grouped(s.skipped)} step${s.skipped > 1 ? 's' : ''} skipped: no update.`);
    if (s.ms.compile > s.ms.all / 100) lines.push(`Kernels were compiled for ${milliseconds(s.ms.compile)}: ${milliseconds(s.ms.overlap)} of it hidden behind computing, ${milliseconds(s.ms.stall)} waited for.`);
    return lines.length > 0 ? el('p', {class: 'facts'}, (run.alone ? '' : run.name + ': ') + lines.join(' ')) : null;
  }

  // ---- the page ------------------------------------------------------------------------------------

  // live: the page has a list of runs of its own, and what has the focus stays.
  kiln.runs = function (root, runs, live) {
    const group = kiln.group();
    const hidden = new Set();
    runs.forEach((run, i) => { run.index = i; run.alone = runs.length === 1; });
    const shown = () => runs.filter((run) => !hidden.has(run));
    const glance = el('div', {});
    const grid = el('div', {class: 'grid-of-charts'});
    const made = charts.map((chart) => ({
      chart, drawn: kiln.chart(grid, {...chart, marks: () => marksOf(shown())}, group),
    }));
    const stacks = runs.map((run) => ({run, drawn: kiln.stack(grid, run, group)}));
    const empty = el('p', {class: 'note'}, 'No step is done yet.');
    const look = () => {
      if (live && glance.contains(document.activeElement)) return;
      glance.replaceChildren(runs.length === 1 ? tiles(runs[0]) : comparison(runs, live ? null : toggle), ...runs.map(standing).filter(Boolean), ...runs.map(facts).filter(Boolean));
      empty.hidden = runs.some((run) => run.summary.steps > 0);
    };
    const curves = () => {
      made.forEach(({chart, drawn}) => drawn.set(curvesOf(chart, shown())));
      stacks.forEach(({run, drawn}) => { drawn.set(run); drawn.figure.hidden = drawn.figure.hidden || hidden.has(run); });
      fit();
      group.draw();
    };
    // Cards of half the width come in pairs: where one would stay alone, time by part is wide.
    function fit() {
      stacks.forEach(({drawn}) => drawn.figure.classList.remove('wide'));
      const halves = [...grid.children].filter((card) => !card.hidden && !card.classList.contains('wide'));
      const wide = stacks.find(({drawn}) => !drawn.figure.hidden);
      if (halves.length % 2 === 1 && wide) wide.drawn.figure.classList.add('wide');
    }
    function toggle(run, on) {
      if (on) hidden.delete(run); else hidden.add(run);
      curves();
    }
    root.replaceChildren(glance, empty, toolbar(group), grid, group.live);
    look();
    curves();
    kiln.memory(grid, runs);
    predictions(grid, runs);
    runs.filter((run) => run.timeline && run.timeline.spans.length > 0).forEach((run) => kiln.timeline(grid, run));
    samples(grid, runs);
    fit();
    incidents(grid, runs);
    settings(grid, runs);
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
