(() => {
  'use strict';
  const main = document.getElementById('main');
  const mark = document.getElementById('connection');
  const markText = document.getElementById('connection-text');
  const heard = document.getElementById('heard');
  const words = { live: 'Live', lost: 'Connection lost, trying again', slow: 'Updating every 5 s', wait: 'Connecting' };
  document.documentElement.classList.add('scripted');

  // The mark changes late, so that a short break does not flicker.
  const show = (state) => {
    document.documentElement.dataset.state = state;
    mark.dataset.state = state;
    if (markText.textContent !== words[state]) markText.textContent = words[state];
  };

  // Redraws: never two at once, at most four a second, and at most a fifth of the time.
  const least = 250;
  let dirty = false, busy = false, pause = 0, timer = 0, from = 0;
  const wish = () => {
    dirty = true;
    if (!busy && !timer && !document.hidden) timer = setTimeout(draw, Math.max(0, from + pause - performance.now()));
  };
  const draw = async () => {
    timer = 0; dirty = false; busy = true; from = performance.now();
    try {
      const there = new URL(location.href);
      there.searchParams.set('part', 'live');
      const answer = await fetch(there, { cache: 'no-store', signal: AbortSignal.timeout(10000) });
      if (answer.ok) swap(await answer.text());
    } catch { /* the event stream notices a lost connection */ }
    pause = Math.max(least, 5 * (performance.now() - from));
    busy = false;
    if (dirty) wish();
  };
  const swap = (text) => {
    const fresh = new DOMParser().parseFromString('<!doctype html><body>' + text, 'text/html');
    const now = [...main.querySelectorAll('[data-live]')], next = [...fresh.querySelectorAll('[data-live]')];
    if (now.map((e) => e.id).join() === next.map((e) => e.id).join()) {
      now.forEach((old, at) => { if (old.outerHTML !== next[at].outerHTML) old.replaceWith(document.adoptNode(next[at])); });
    } else {
      main.replaceChildren(...[...fresh.body.childNodes].map((node) => document.adoptNode(node)));
    }
    points = null;
    if (pointed !== null) point();
    tell();
  };
  let state = null;
  const tell = () => {
    const told = document.getElementById('title-live');
    if (!told) return;
    document.title = told.dataset.title;
    if (state !== null && state !== told.dataset.state) heard.textContent = told.dataset.state;
    state = told.dataset.state;
  };

  let events = null, late = 0;
  const listen = () => {
    events = new EventSource(main.dataset.events);
    events.onopen = () => { clearTimeout(late); late = 0; show('live'); wish(); };
    events.onerror = () => {
      // A closed stream was refused (too many watchers): ask now and then instead.
      if (events.readyState === EventSource.CLOSED) { show('slow'); setTimeout(listen, 30000); return; }
      if (!late) late = setTimeout(() => show('lost'), 1500);
    };
    for (const name of ['point', 'alert', 'queue', 'link', 'missed']) events.addEventListener(name, wish);
  };
  show('wait');
  listen();
  tell();
  setInterval(wish, 5000);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) wish(); });

  // The read-out under the pointer.
  const readout = () => document.getElementById('readout');
  let points = null, pointed = null;
  const short = (value) => value === '' ? '' : Number(value).toLocaleString('en', { maximumFractionDigits: 2, minimumFractionDigits: 2 });
  const parse = (field) => field.dataset.points.split(';').slice(0, -1).map((row) => {
    const [after, low, high, score, expected] = row.split(',');
    return { at: Number(after) * 1000, low, high, score, expected };
  });
  const point = () => {
    const field = main.querySelector('[data-plot]');
    if (!field) return;
    points = points || parse(field);
    if (!points.length) return;
    const box = field.getBoundingClientRect(), start = Number(field.dataset.from), span = Number(field.dataset.to) - start || 1;
    const at = Math.min(1, Math.max(0, (pointed - box.left) / box.width)) * span;
    let best = points[0];
    for (const one of points) if (Math.abs(one.at - at) < Math.abs(best.at - at)) best = one;
    const place = (best.at / span * 100) + '%';
    for (const line of main.querySelectorAll('.cross')) {
      line.setAttribute('x1', place); line.setAttribute('x2', place); line.setAttribute('visibility', 'visible');
    }
    const unit = field.dataset.unit ? ' ' + field.dataset.unit : '';
    const value = short(best.low) === short(best.high) ? short(best.low) : short(best.low) + ' to ' + short(best.high);
    const parts = [['', new Date(start + best.at).toISOString().slice(0, 16).replace('T', ' ')], ['measured ', value + unit]];
    if (best.expected) parts.push(['expected ', short(best.expected) + unit]);
    if (best.score) parts.push(['score ', short(best.score)]);
    readout().replaceChildren(...parts.flatMap(([name, text]) => {
      const strong = document.createElement('b');
      strong.textContent = text;
      return [name, strong];
    }));
  };
  const leave = () => {
    pointed = null;
    for (const line of main.querySelectorAll('.cross')) line.setAttribute('visibility', 'hidden');
    if (readout()) readout().replaceChildren();
  };
  const follow = (event) => {
    if (event.target.closest('.chart')) { pointed = event.clientX; point(); } else if (pointed !== null) leave();
  };
  main.addEventListener('pointermove', follow);
  main.addEventListener('pointerdown', follow);
  main.addEventListener('pointerleave', leave);
})();
