// SPDX-License-Identifier: MIT
//
// dashboard.js: runs as they are trained. What a run looks like is report.js's; here are the list of
// runs, the stream of events that lets charts grow, and the two things that a run may be asked for.
//
// The token comes with the address (#token=...), is kept for this tab, and goes nowhere but into the
// header of the two requests that need it.
'use strict';

(function () {
  const {el} = kiln;
  const {grouped, loss, small, short, time, times} = kiln.format;
  const $ = (id) => document.getElementById(id);
  const MOST_POINTS = 1500; // of a curve, before the run is asked for again, thinned out
  const DRAW_MS = 250;

  // ---- token -------------------------------------------------------------------------------------

  function findToken() {
    const given = /(?:^|[#&?])token=([0-9a-f]{32})(?:$|&)/;
    const found = given.exec(location.hash) || given.exec(location.search);
    try {
      if (found) {
        sessionStorage.setItem('kiln-token', found[1]);
        history.replaceState(null, '', location.pathname);
      }
      return found ? found[1] : sessionStorage.getItem('kiln-token') || '';
    } catch (error) {
      return found ? found[1] : '';
    }
  }
  const token = findToken();

  // ---- what is known -----------------------------------------------------------------------------

  let runs = []; // of /api/runs, the newest first
  let chosen = new Set(); // names
  const views = new Map(); // name: the run as report.js takes it, with its id
  let page = null, settled = false, shownNames = '';

  const json = async (path) => {
    const answer = await fetch(path, {cache: 'no-store'});
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error || String(answer.status));
    return body;
  };
  const byId = (id) => runs.find((run) => run.id === id);
  const live = (run) => run.status === 'running' || run.status === 'stale';

  // ---- the list ----------------------------------------------------------------------------------

  const words = {
    waiting: 'not read yet', running: 'running', stale: 'no step for long', stopped: 'stopped',
    finished: 'finished', failed: 'failed',
  };
  function told(run) {
    const of = run.total > 0 ? ` of ${grouped(run.total)}` : '';
    const parts = [`step ${grouped(run.step)}${of}`];
    if (Number.isFinite(run.loss)) parts.push(`loss ${loss(run.loss)}`);
    if (live(run) && Number.isFinite(run.tokens_per_s)) parts.push(`${short(run.tokens_per_s)} tok/s`);
    if (live(run) && Number.isFinite(run.left_s)) parts.push(`${time(run.left_s)} to go`);
    if (run.failed) parts.push(run.failed);
    return parts.join(', ');
  }
  function fillItem(item, run) {
    const index = [...chosen].indexOf(run.name);
    const view = views.get(run.name);
    item.box.checked = chosen.has(run.name);
    item.name.textContent = run.name;
    item.badge.textContent = words[run.status];
    item.badge.className = 'badge ' + run.status;
    item.told.textContent = told(run);
    item.bar.hidden = !(run.total > 0);
    item.bar.max = Math.max(run.total, 1);
    item.bar.value = Math.min(run.step, run.total);
    item.swatch.className = index >= 0 && view ? `mark-of run-${(view.index || 0) % 8}` : 'mark-of';
  }
  function makeItem(name) {
    const item = {
      box: el('input', {type: 'checkbox', change: (event) => choose(name, event.target.checked)}),
      swatch: el('span', {class: 'mark-of', 'aria-hidden': 'true'}), name: el('span', {class: 'run-name'}),
      badge: el('span', {class: 'badge'}), told: el('span', {class: 'told'}),
      bar: el('progress', {'aria-label': 'steps done'}),
    };
    item.node = el('li', {}, el('label', {}, item.box, item.swatch, item.name, item.badge), item.told, item.bar);
    return item;
  }
  const items = new Map();
  function drawList() {
    const text = $('filter').value.toLowerCase();
    const wanted = runs.filter((run) => run.name.toLowerCase().includes(text));
    const nodes = wanted.map((run) => {
      if (!items.has(run.name)) items.set(run.name, makeItem(run.name));
      const item = items.get(run.name);
      fillItem(item, run);
      return item.node;
    });
    const now = [...$('runs').children];
    if (now.length !== nodes.length || now.some((node, i) => node !== nodes[i])) {
      $('runs').replaceChildren(...nodes); // only then: the focus stays where it is
    }
    $('count').textContent = runs.length > 1 ? `${wanted.length} of ${runs.length} runs` : '';
    $('none').hidden = wanted.length > 0;
    $('none').textContent = runs.length > 0 ? 'No run has that in its name.'
      : 'No run yet: this page shows the first one as soon as it is there.';
  }

  function choose(name, on) {
    if (on) chosen.add(name); else chosen.delete(name);
    settled = true;
    show();
  }

  // ---- a run -------------------------------------------------------------------------------------

  async function load(name) {
    const body = await json(`/api/run?name=${encodeURIComponent(name)}&points=600&parts=15`);
    const before = views.get(name);
    const view = {...body.view, name, id: body.run.id, live: live(body.run), width: 0, rate: body.rate, peaks: body.peaks || []};
    if (before && before.shape === shapeOf(view)) {
      Object.assign(before, view);
    } else {
      view.shape = shapeOf(view);
      views.set(name, view);
      shownNames = ''; // parts of the page that do not grow have to be made again
    }
    take(body.run);
    sayPeak(view);
  }
  // What the page makes once: samples, timeline, settings, incidents.
  function shapeOf(view) {
    const last = view.samples && view.samples.length > 0 ? view.samples[view.samples.length - 1] : null;
    return JSON.stringify([view.live, view.samples_all, last, view.timeline && view.timeline.spans.length,
      view.incidents, view.settings, view.checkpoints]);
  }
  function take(run) {
    const i = runs.findIndex((one) => one.id === run.id);
    if (i >= 0) runs[i] = {...runs[i], ...run}; else runs.push(run);
  }

  const waiting = new Map(); // name: a load that is under way, and whether another is wanted
  async function again(name) {
    const under = waiting.get(name);
    if (under) {
      under.more = true;
      return;
    }
    const one = {more: false};
    waiting.set(name, one);
    try {
      await load(name);
    } catch (error) {
      views.delete(name);
    }
    await new Promise((done) => setTimeout(done, 500)); // a fast run is not asked for all the time
    waiting.delete(name);
    if (one.more && chosen.has(name)) again(name);
    drawSoon();
  }

  // A step at the end of every curve that it has a value of.
  const partOf = {device: 'device', host: 'host', dw_wait: 'dw_wait', io: 'io', update: 'update', stall: 'stall', restart: 'restart'};
  function grow(view, step) {
    const last = view.summary.step;
    if (step.step !== last + 1) return false;
    for (const [key, list] of Object.entries(view.series)) {
      if (step[key] !== undefined && (step[key] !== null || key === 'loss' || key === 'smoothed')) {
        list.steps.push(step.step);
        list.values.push(step[key]);
        if (list.steps.length > MOST_POINTS) return false;
      }
    }
    if (step.val_loss !== undefined && step.val_loss !== null && !view.series.val_loss) return false;
    growMeans(view, step);
    growTime(view, step);
    growAxis(view, step);
    growSummary(view.summary, step);
    return true;
  }
  function growTime(view, step) {
    if (!view.time || !step.time || !view.time.steps) return;
    const steps = view.time.steps, width = view.width = view.width || strideOf(steps), n = steps.length;
    // As many steps to a column as in those that came with the run: the scale stays one scale.
    const held = n > 1 ? steps[n - 1] - steps[n - 2] : width;
    const fresh = n === 0 || held >= width;
    if (fresh) steps.push(step.step); else steps[n - 1] = step.step;
    for (const [key, values] of Object.entries(view.time)) {
      if (key === 'steps') continue;
      const value = step.time[partOf[key] || key] || 0;
      if (fresh) values.push(value); else values[n - 1] += (value - values[n - 1]) / (held + 1);
    }
  }
  // Steps from one point to the next of a list that was cut into equal stretches.
  function strideOf(steps) {
    const n = steps.length;
    return n > 1 ? Math.max(Math.round((steps[n - 2] - steps[0]) / Math.max(n - 2, 1)), 1) : 1;
  }
  // A mean moves on from where it was; its last point is the last step, older ones stay a stretch apart.
  function growMeans(view, step) {
    for (const [key, list] of Object.entries(view.series)) {
      const value = key.endsWith('_mean') ? step[key.slice(0, -5)] : null;
      const n = list.steps.length;
      if (!Number.isFinite(value) || n < 2) continue;
      list.width = list.width || strideOf(list.steps);
      const mean = list.values[n - 1] + (value - list.values[n - 1]) / list.width;
      if (step.step - list.steps[n - 2] > list.width) {
        list.steps.push(step.step);
        list.values.push(mean);
      } else {
        list.steps[n - 1] = step.step;
        list.values[n - 1] = mean;
      }
    }
  }
  function growAxis(view, step) {
    const axis = view.axis;
    if (!axis || axis.steps.length === 0) return;
    const seconds = axis.seconds[axis.seconds.length - 1] + (step.ms || 0) / 1e3;
    axis.steps.push(step.step);
    axis.tokens.push(step.tokens);
    axis.seconds.push(seconds);
  }
  function growSummary(s, step) {
    s.steps += 1;
    s.step = step.step;
    s.tokens = step.tokens;
    s.last_loss = step.loss;
    s.smoothed = step.smoothed;
    s.seconds += (step.ms || 0) / 1e3;
    s.peak_bytes = Math.max(s.peak_bytes || 0, step.peak_bytes || 0);
    s.tokens_per_s = s.seconds > 0 ? s.tokens / s.seconds : s.tokens_per_s;
    if (s.total > 0 && s.step_s > 0) s.left_s = Math.max(s.total - s.step, 0) * s.step_s;
    if (Number.isFinite(step.val_loss)) {
      s.last_val = step.val_loss;
      if (!(s.best_val <= step.val_loss)) {
        s.best_val = step.val_loss;
        s.best_val_step = step.step;
      }
    }
    for (const [key, ms] of Object.entries(step.time || {})) {
      if (key in s.ms) s.ms[key] += ms;
    }
    if ('all' in s.ms) s.ms.all += step.ms || 0;
  }

  // ---- drawing -----------------------------------------------------------------------------------

  let timer = null;
  function drawSoon() {
    if (timer === null) timer = setTimeout(draw, document.hidden ? 2000 : DRAW_MS);
  }
  function draw() {
    timer = null;
    const shown = runs.filter((run) => chosen.has(run.name) && views.has(run.name)).map((run) => views.get(run.name));
    const names = JSON.stringify(shown.map((view) => view.name));
    if (names !== shownNames) {
      shownNames = names;
      const zoom = page && page.group.view, mode = page && page.group.mode;
      if (shown.length > 0) {
        page = kiln.runs($('view'), shown, true);
        if (mode && mode !== 'step') page.group.setMode(mode);
        if (zoom) page.group.zoom(zoom[0], zoom[1]);
      } else {
        page = null;
        $('view').replaceChildren(el('p', {class: 'note'}, runs.length > 0 ? 'Choose a run to see it.' : ''));
      }
    } else if (page) {
      page.refresh();
    }
    drawList();
    drawControl();
    title();
  }
  function title() {
    const run = runs.find((one) => chosen.has(one.name) && live(one)) || runs.find((one) => chosen.has(one.name));
    document.title = run ? `${run.name}: ${words[run.status]}, step ${grouped(run.step)}` : 'kiln dashboard';
  }
  async function show() {
    drawList();
    await Promise.all([...chosen].filter((name) => !views.has(name)).map(again0));
    draw();
  }
  const again0 = (name) => load(name).catch(() => { chosen.delete(name); });

  // ---- changing a run ----------------------------------------------------------------------------

  const said = (text) => { if ($('said').textContent !== text) $('said').textContent = text; };
  const target = () => runs.find((run) => run.name === $('which').value);
  function drawControl() {
    const able = runs.filter((run) => chosen.has(run.name) && live(run));
    const before = $('which').value;
    $('control').hidden = able.length === 0 && $('said').textContent === '';
    $('which-label').hidden = able.length < 2;
    const names = able.map((run) => run.name);
    if (JSON.stringify([...$('which').options].map((o) => o.value)) !== JSON.stringify(names)) {
      $('which').replaceChildren(...names.map((name) => el('option', {value: name}, name)));
      if (names.includes(before)) $('which').value = before;
    }
    for (const id of ['stop', 'rate-go', 'rate']) $(id).disabled = !token || able.length === 0;
    const view = views.get($('which').value);
    const known = view && Number.isFinite(view.rate), peak = view && view.peaks[view.peaks.length - 1];
    $('rate').placeholder = known ? small(view.rate) : '';
    $('rate-now').textContent = !known ? '' : `now ${small(view.rate)}` +
      (peak ? `, from step ${grouped(peak[0] + 1)} on` : '');
    if (!token) said('To stop a run or change its learning rate, open the address that kiln printed: it holds the token.');
  }
  async function ask(run, path, body, done) {
    try {
      const answer = await fetch(path, {
        method: 'POST', cache: 'no-store',
        headers: {'Content-Type': 'application/json', 'X-Kiln-Token': token},
        body: JSON.stringify({run: run.name, ...body}),
      });
      const text = await answer.json();
      said(answer.ok ? done() : `Not done: ${text.error}`);
    } catch (error) {
      said('Not done: the dashboard does not answer.');
    }
  }
  // What is done when the question is answered with yes; the run is the one that it was put about.
  let agreed = null;
  function question(title, text, no, yes, act) {
    agreed = act;
    $('confirm-title').textContent = title;
    $('confirm-text').textContent = text;
    $('confirm-no').textContent = no;
    $('confirm-yes').textContent = yes;
    $('confirm').showModal();
    $('confirm-no').focus();
  }
  $('stop').addEventListener('click', () => {
    const run = target();
    if (!run) return;
    question('Stop and save?', `${run.name} finishes its current action, saves its state and ends. ` +
      `kiln train --resume ${run.folder} goes on with the same numbers.`, 'Keep training', 'Stop and save',
    () => ask(run, '/api/stop', {}, () => `${run.name} is asked to stop.`));
  });
  $('confirm-no').addEventListener('click', () => $('confirm').close());
  $('confirm-yes').addEventListener('click', () => {
    $('confirm').close();
    if (agreed) agreed();
  });
  $('confirm').addEventListener('close', () => { agreed = null; });

  const FAR = 5; // so many times more or less than now is asked about: a slip of the keys, mostly
  function askRate(run, lr) {
    const view = views.get(run.name), before = JSON.stringify(view ? view.peaks : []);
    ask(run, '/api/rate', {lr}, () => {
      asked = {name: run.name, before};
      $('rate').value = '';
      return `${run.name} is asked for the peak learning rate ${small(lr)}; it holds from the next step on.`;
    });
  }
  // The trainer writes into run.json what it obeyed, before it takes a step: that is its word.
  let asked = null;
  function sayPeak(view) {
    if (!asked || asked.name !== view.name || JSON.stringify(view.peaks) === asked.before) return;
    const [at, lr] = view.peaks[view.peaks.length - 1];
    asked = null;
    said(`${view.name}: the peak learning rate is ${small(lr)} from step ${grouped(at + 1)} on.`);
  }
  $('rate-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = $('rate').value.trim(), lr = Number(text);
    if (text === '' || !(lr >= 0 && lr <= 1000)) {
      said('A learning rate is a number from 0 to 1000, as 3e-4.');
      return;
    }
    const run = target();
    if (!run) return;
    const now = (views.get(run.name) || {}).rate;
    if (lr > 0 && lr <= FAR * now && now <= FAR * lr) {
      askRate(run, lr);
      return;
    }
    const far = lr === 0 ? 'With 0 nothing is learned.' : !(now > 0) ? ''
      : lr > now ? `That is ${times(lr / now)} times as much.` : `That is ${times(now / lr)} times less.`;
    question(`Peak learning rate ${small(lr)}?`, `It is ${small(now)} now. ${far} The run takes its next ` +
      'step at it, and all later ones; what is learned until you change it back stays learned.',
    `Keep ${small(now)}`, `Change to ${small(lr)}`, () => askRate(run, lr));
  });
  $('which').addEventListener('change', drawControl);
  $('filter').addEventListener('input', drawList);

  // ---- events ------------------------------------------------------------------------------------

  async function refreshRuns() {
    const body = await json('/api/runs');
    runs = body.runs.sort((a, b) => live(b) - live(a) || b.changed - a.changed || a.name.localeCompare(b.name));
    for (const name of [...chosen]) {
      if (!runs.some((run) => run.name === name)) chosen.delete(name);
    }
    for (const [name, view] of [...views]) {
      if (!runs.some((run) => run.name === name && run.id === view.id)) views.delete(name);
    }
    if (!settled && chosen.size === 0 && runs.length > 0) chosen.add(runs[0].name);
    await show();
  }
  const connection = (text, name) => {
    if ($('connection').textContent !== text) $('connection').textContent = text;
    $('connection').className = 'connection ' + name;
  };
  async function everything() {
    try {
      const body = [...chosen];
      await refreshRuns();
      await Promise.all(body.filter((name) => views.has(name)).map(again0));
      draw();
      connection('live', 'live');
    } catch (error) {
      connection('the dashboard does not answer', 'lost');
    }
  }
  const on = {
    hello: (data) => { if (data.resumed) connection('live', 'live'); else everything(); },
    reset: everything,
    runs: () => refreshRuns().catch(() => {}),
    run: (data) => {
      const run = byId(data.id);
      if (!run) return;
      const began = !live(run) && live(data);
      const ended = live(run) && data.status !== 'running' && data.status !== 'stale';
      Object.assign(run, {status: data.status, step: Math.max(data.step, run.step)});
      if (ended && $('which').value === run.name) said(`${run.name}: ${words[data.status]}.`);
      if (chosen.has(run.name) && (data.facts || ended || began)) again(run.name);
      if (!chosen.has(run.name)) refreshRuns().catch(() => {});
      drawSoon();
    },
    again: (data) => {
      const run = byId(data.id);
      if (run && chosen.has(run.name)) again(run.name);
      else refreshSoon();
    },
    step: (data) => {
      const run = byId(data.id), step = data.step;
      if (!run) return;
      Object.assign(run, {step: step.step, loss: step.loss, tokens_per_s: step.tokens_per_s});
      const view = views.get(run.name);
      if (view && step.step > view.summary.step && !grow(view, step)) again(run.name);
      if (view) run.left_s = view.summary.left_s;
      drawSoon();
    },
  };
  let refreshing = null;
  function refreshSoon() {
    refreshing = refreshing || setTimeout(() => { refreshing = null; refreshRuns().catch(() => {}); }, 2000);
  }

  const source = new EventSource('/events');
  for (const [name, act] of Object.entries(on)) {
    source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  }
  source.addEventListener('error', () => connection('connecting again', 'lost'));
}());
