/* The page's script: draws the spectrum of the chosen state, layer and head from the JSON in the
 * page. The choice is kept in the fragment (#state=key&layer=1&head=0, the model's own numbers),
 * so that a link can hold it. Power and null, or power over null, are on logarithmic axes, which
 * all layers and heads of a state share, so that the picture stays where it is while they change.
 * DC is decades above the rest: it is in the sentence below the picture. */
'use strict';
(() => {
  const id = (name) => document.getElementById(name);
  if (!id('data')) return; /* a report without spectra */
  const data = JSON.parse(id('data').textContent);
  /* A telephone: fewer units across, so that letters keep their size. */
  const small = innerWidth < 560;
  const W = small ? 400 : 760,
    H = small ? 360 : 430,
    L = 82,
    R = 14,
    T = small ? 76 : 34,
    B = 48,
    svgns = 'http://www.w3.org/2000/svg';
  const plot = id('plot');
  plot.setAttribute('viewBox', '0 0 ' + W + ' ' + H);
  const controls = { state: id('state'), shown: id('shown'), layer: id('layer'), head: id('head') };

  const add = (name, attributes, text) => {
    const element = document.createElementNS(svgns, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    plot.appendChild(element);
  };
  const percent = (x) => (100 * x).toFixed(1) + '%';
  const raised = (c) => (c === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c]);
  const decade = (e) => '10' + String(e).split('').map(raised).join('');

  /* Is power over null shown? */
  const relative = (s) => Boolean(s.null) && controls.shown.value === 'ratio';
  /* What is drawn of values [bands] of a head. */
  const over = (s, l, h, values) => relative(s) ? values.map((v, i) => v === null ? null : v / s
    .null[l][h][i]) : values;

  /* Exponents that all heads of all layers span, a decade at least. */
  const range = (s) => {
    let low = Infinity,
      high = -Infinity;
    const take = (v) => { if (v > 0) low = Math.min(low, v), high = Math.max(high, v); };
    s.power.forEach((heads, l) => heads.forEach((power, h) => {
      over(s, l, h, power).forEach(take);
      if (s.null) over(s, l, h, s.null[l][h]).forEach(take);
    }));
    if (low > high) return [-1, 1];
    [low, high] = [Math.log10(low), Math.log10(high)];
    const margin = Math.max(0.05 * (high - low), (1.1 - (high - low)) / 2);
    return [low - margin, high + margin];
  };
  const path = (points) => {
    let d = '',
      pen = 'M';
    for (const [x, y] of points) {
      if (!isFinite(x + y)) { pen = 'M'; continue; }
      d += pen + x.toFixed(1) + ' ' + y.toFixed(1);
      pen = 'L';
    }
    return d;
  };

  const axes = (s, x, y, xs, ys) => {
    for (let e = Math.floor(xs[0]); e <= 0; e++)
      for (let k = 1; k < 10; k++) {
        const v = Math.log10(k) + e;
        if (v < xs[0] || v > xs[1]) continue;
        add('line', { class: k > 1 ? 'minor' : 'tick', x1: x(v), x2: x(v), y1: H - B,
          y2: H - B + (k > 1 ? 3 : 6) });
        if (k === 1) add('text', { x: x(v), y: H - B + 20, 'text-anchor': 'middle' },
          decade(e));
      }
    const steps = ys[1] - ys[0] < 2.2 ? [1, 2, 5] : [1],
      skip = Math.ceil((ys[1] - ys[0]) / 8);
    for (let e = Math.floor(ys[0]); e <= ys[1]; e++)
      for (const k of steps) {
        const v = Math.log10(k) + e;
        if (v < ys[0] || v > ys[1] || e % skip) continue;
        add('line', { class: 'tick', x1: L - 6, x2: L, y1: y(v), y2: y(v) });
        add('text', { x: L - 10, y: y(v) + 4, 'text-anchor': 'end' }, k > 1 ? k + '·' +
          decade(e) : decade(e));
      }
    add('rect', { class: 'frame', x: L, y: T, width: W - L - R, height: H - T - B });
    add('text', { x: (L + W - R) / 2, y: H - 8, 'text-anchor': 'middle' },
      'frequency (cycles per token)');
    add('text', { x: 14, y: (T + H - B) / 2, 'text-anchor': 'middle',
      transform: 'rotate(-90 14 ' + (T + H - B) / 2 + ')' },
      relative(s) ? 'power / tokens permuted' : 'power per channel');
    let at = L + 4,
      row = 0;
    for (const [name, label, drawn] of [
        ['line', 'this head', true],
        ['se', '± 1 standard error', s.se],
        ['null', 'tokens permuted', s.null],
        ['others', 'other heads of the layer', s.head.length > 1]
      ]) {
      if (!drawn) continue;
      if (at + 30 + 7 * label.length > W) at = L + 4, row += 20;
      add('path', { class: name, d: name === 'se' ? 'M' + at + ' ' + (14 + row) +
          'h24v8h-24z' : 'M' + at + ' ' + (18 + row) + 'h24' });
      add('text', { x: at + 30, y: 22 + row }, label);
      at += 54 + 7 * label.length;
    }
  };

  const draw = () => {
    const s = data.spectra[controls.state.value],
      l = +controls.layer.value,
      h = +controls.head.value;
    const xs = [Math.log10(s.frequency[0]) - 0.03, Math.log10(s.frequency[s.frequency
        .length - 1]) + 0.03],
      ys = range(s);
    const x = (v) => L + (v - xs[0]) / (xs[1] - xs[0]) * (W - L - R),
      y = (v) => H - B - (v - ys[0]) / (ys[1] - ys[0]) * (H - T - B);
    const at = (value, i) => [x(Math.log10(s.frequency[i])), value === null ? NaN : Math
      .max(T, Math.min(H - B, y(Math.log10(Math.max(value, 1e-300)))))
    ];
    plot.replaceChildren();
    axes(s, x, y, xs, ys);
    s.power[l].forEach((other, k) => k !== h && add('path', { class: 'others', d: path(over(s, l,
      k, other).map(at)) }));
    const power = over(s, l, h, s.power[l][h]);
    if (s.se) {
      const se = over(s, l, h, s.se[l][h]),
        known = power.map((_, i) => i).filter((i) => power[i] !== null && se[i] !== null);
      const edge = known.map((i) => at(power[i] + se[i], i)).concat(known.map((i) => at(
        power[i] - se[i], i)).reverse());
      add('path', { class: 'se', d: known.length ? path(edge) + 'Z' : '' });
    }
    if (s.null) add('path', { class: 'null', d: path(over(s, l, h, s.null[l][h]).map(at)) });
    add('path', { class: 'line', id: 'power', d: path(power.map(at)) });
    const share = s.half && s.half[l][h],
      chance = s.half_null && s.half_null[l][h];
    let text = s.label + ', layer ' + s.layer[l] + ', ' + s.unit + ' ' + s.head[h] + (s.dc[
      l][h] === null ? '.' : ': power at t = 0 (DC) ' + Number(s.dc[l][h].toPrecision(
      3)) + '.');
    if (typeof share === 'number') text += ' Without DC, ' + percent(share) +
      ' of the energy lies in the lower half of the frequencies' + (typeof chance ===
        'number' ? '; with tokens permuted, ' + percent(chance) : '') + '.';
    id('readout').textContent = text[0].toUpperCase() + text.slice(1);
    id('layer-number').textContent = s.layer[l];
    id('head-number').textContent = s.head[h];
    id('head-unit').textContent = s.unit;
    controls.layer.setAttribute('aria-valuetext', 'layer ' + s.layer[l]);
    controls.head.setAttribute('aria-valuetext', s.unit + ' ' + s.head[h]);
  };

  const fit = () => {
    const s = data.spectra[controls.state.value];
    for (const name of ['layer', 'head']) {
      controls[name].max = s[name].length - 1;
      controls[name].disabled = s[name].length < 2;
    }
    controls.shown.disabled = !s.null;
  };
  const follow = () => {
    if (!location.hash.includes('=')) return; /* a link to a section */
    const wanted = new URLSearchParams(location.hash.slice(1)),
      state = data.spectra.findIndex((s) => s.state === wanted.get('state'));
    if (state >= 0) controls.state.value = state;
    fit();
    for (const name of ['layer', 'head']) {
      const i = data.spectra[controls.state.value][name].indexOf(Number(wanted.get(name) ??
        NaN));
      if (i >= 0) controls[name].value = i;
    }
    draw();
  };
  const changed = () => {
    fit();
    draw();
    const s = data.spectra[controls.state.value];
    history.replaceState(null, '', '#state=' + s.state + '&layer=' + s.layer[controls.layer
      .value] + '&head=' + s.head[controls.head.value]);
  };

  data.spectra.forEach((s, i) => controls.state.add(new Option(s.label, i)));
  for (const name in controls) controls[name].addEventListener('input', changed);
  addEventListener('hashchange', follow);
  id('explorer').hidden = false;
  fit();
  draw();
  follow();
})();

/* Print opens every fold, and closes those again that were closed. */
(() => {
  let closed = [];
  addEventListener('beforeprint', () => { closed = [...document.querySelectorAll(
      'details:not([open])')];
    closed.forEach((d) => d.open = true); });
  addEventListener('afterprint', () => closed.forEach((d) => d.open = false));
})();
