const STEP = 1; // seconds of an arrow key
const WORDS = ['bad', 'poor', 'fair', 'good', 'excellent']; // of BS.1534, by twenties
const LEAST_REFERENCE = 90; // BS.1534-3 doubts listeners who rate the hidden reference lower

// Sources of each clip: the original, the models, the anchors.
const sources = [
  { kind: 'reference', name: 'Original' },
  ...data.models.map(name => ({ kind: 'model', name })),
  ...data.anchors.map(({ hertz }) => ({ kind: 'anchor', name: `low-pass ${hertz / 1000} kHz` })),
];
const openChoices = sources.flatMap(({ kind, name }, source) =>
  kind === 'anchor' ? [] : [{ source, label: name }]);

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

function shuffled(values) {
  const result = [...values];
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [result[last], result[other]] = [result[other], result[last]];
  }
  return result;
}

// The blind session: in what order clips and their sounds come, and the ratings. It is kept in the
// browser, so that a page that is closed goes on.

const STORE = `listening-${data.key}`;

function newSession() {
  return {
    clips: shuffled(data.clips.keys()),
    orders: data.clips.map(() => shuffled(sources.keys())),
    scores: data.clips.map(() => sources.map(() => null)), // by source
    listener: '',
    finished: false,
  };
}

function storedSession() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? newSession();
  } catch {
    return newSession(); // a browser that stores nothing
  }
}

function storeSession() {
  try {
    localStorage.setItem(STORE, JSON.stringify(session));
  } catch { /* the ratings last as long as the page */ }
}

const letterOf = place => String.fromCharCode(65 + place);
const isRated = clip => session.scores[clip].every(score => score !== null);
const ratedClips = () => session.clips.filter(isRated);

function ratings() {
  return ratedClips().flatMap(clip => session.orders[clip].map((source, place) => ({
    clip: data.clips[clip].name, label: letterOf(place), ...sources[source],
    score: session.scores[clip][source],
  })));
}

function toCsv() {
  const quote = value => /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  const rows = ratings().map(({ clip, label, kind, name, score }) =>
    [session.listener, clip, label, kind, name, score]);
  return [['listener', 'clip', 'label', 'kind', 'source', 'score'], ...rows]
    .map(row => row.map(value => quote(String(value))).join(',') + '\r\n').join('');
}

// The page.

let session = storedSession();
let isBlind = false;
let place = 0;   // in the order of the clips
let choice = 0;  // among those of the clip
let loading = 0; // counts, so that a clip that comes late is dropped

const clipAt = number => isBlind ? session.clips[number] : number;

function choices() {
  if (!isBlind) return openChoices;
  const hidden = session.orders[clipAt(place)].map((source, number) => ({
    source, isRated: true,
    label: letterOf(number) + (session.finished ? ` – ${sources[source].name}` : ''),
  }));
  return [{ source: 0, label: 'Reference' }, ...hidden];
}

function select(number) {
  if (number >= choices().length) return;
  choice = number;
  player.select(choices()[number].source);
  [...byId('sources').children].forEach((row, each) => {
    row.classList.toggle('playing', each === choice);
    row.firstChild.setAttribute('aria-pressed', each === choice);
  });
}

function toggle() {
  if (player.playing) player.pause(); else player.play();
  byId('play').textContent = player.playing ? 'Pause' : 'Play';
}

async function show(number) {
  place = number;
  const clip = clipAt(place), token = ++loading;
  player.insert([], []);
  byId('play').textContent = 'Play';
  byId('play').disabled = true;
  byId('clip').replaceChildren(...data.clips.map((_, each) => {
    const mark = isBlind && isRated(clipAt(each)) ? ' ✓' : '';
    const text = `${each + 1} of ${data.clips.length}: ${data.clips[clipAt(each)].name}${mark}`;
    return element('option', { textContent: text, value: each, selected: each === place });
  }));
  byId('previous').disabled = place === 0;
  byId('next').disabled = place === data.clips.length - 1;
  byId('sources').replaceChildren(...choices().map(makeRow));
  select(Math.min(choice, choices().length - 1));
  showProgress();
  try {
    const buffers = await loadClip(clip);
    if (token !== loading) return;
    player.insert(buffers, data.clips[clip].gains);
    byId('status').textContent = '';
    byId('play').disabled = false;
  } catch (error) {
    byId('status').textContent = `This browser cannot decode the sounds (${error.message}): `
      + 'use Chrome, Edge, Firefox, or Safari from 18.4.';
  }
}

function makeRow({ source, label, isRated }, number) {
  const key = number < 9 ? [element('kbd', { textContent: number + 1 })] : [];
  const button = element('button', { onclick: () => select(number) }, ...key, label);
  const row = element('div', { className: 'source' }, button);
  if (sources[source].kind === 'model' && !isBlind) row.classList.add(`colour-${(source - 1) % 8}`);
  if (isRated) row.append(makeRating(source, number));
  if (!isBlind) row.append(makePicture(source, number));
  return row;
}

function makePicture(source, number) {
  const image = element('img', { src: data.clips[place].pictures[source], alt: '' });
  const picture = element('div', { className: 'picture' }, image);
  picture.onclick = ({ offsetX }) => {
    select(number);
    player.seek(offsetX / picture.clientWidth * player.duration);
    if (!player.playing) toggle();
  };
  return picture;
}

function makeRating(source, number) {
  const scores = session.scores[clipAt(place)];
  const output = element('output');
  const slider = element('input', {
    type: 'range', min: 0, max: 100, value: scores[source] ?? 50, disabled: session.finished,
    ariaLabel: `Rating of ${letterOf(number - 1)}`,
  });
  const box = element('div', { className: 'rate' }, slider, output);
  const update = () => {
    box.classList.toggle('unset', scores[source] === null);
    output.textContent = scores[source] === null ? 'not rated'
      : `${scores[source]} ${WORDS[Math.min(4, Math.floor(scores[source] / 20))]}`;
  };
  // A click where the slider is counts too.
  slider.oninput = slider.onclick = () => {
    scores[source] = slider.valueAsNumber;
    update();
    showProgress();
    storeSession();
  };
  update();
  return box;
}

function showProgress() {
  const rated = ratedClips().length;
  byId('progress').max = data.clips.length;
  byId('progress').value = rated;
  byId('progress-text').textContent = `${rated} of ${data.clips.length} clips rated`;
  byId('finish').disabled = rated === 0;
}

function showResult() {
  document.body.classList.toggle('blind', isBlind);
  document.body.classList.toggle('finished', isBlind && session.finished);
  byId('result').hidden = !(isBlind && session.finished);
  byId('open').setAttribute('aria-pressed', !isBlind);
  byId('blind').setAttribute('aria-pressed', isBlind);
  const rows = ratings();
  const low = rows.filter(({ kind, score }) => kind === 'reference' && score < LEAST_REFERENCE).length;
  byId('result-text').textContent = `${ratedClips().length} of ${data.clips.length} clips are rated. `
    + `The hidden reference is below ${LEAST_REFERENCE} in ${low} of them`
    + (low > 0.15 * ratedClips().length ? ': more than BS.1534-3 accepts of a listener (15 %).' : '.');
  const head = ['sound', 'mean', 'lowest', 'highest'].map(textContent => element('th', { textContent }));
  const body = sources.map(({ kind, name }) => {
    const scores = rows.filter(row => row.kind === kind && row.name === name).map(row => row.score);
    const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
    const cells = [name, mean.toFixed(1), Math.min(...scores), Math.max(...scores)];
    return element('tr', {}, ...cells.map(textContent => element('td', { textContent })));
  });
  byId('scores').replaceChildren(
    element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...body));
}

function setMode(blind) {
  isBlind = blind;
  choice = 0;
  showResult();
  show(0);
}

function finish() {
  const left = data.clips.length - ratedClips().length;
  if (left && !confirm(`${left} clips are not rated and will be left out. Finish?`)) return;
  session.finished = true;
  storeSession();
  showResult();
  show(place);
  byId('result').scrollIntoView();
}

function download() {
  const address = URL.createObjectURL(new Blob([toCsv()], { type: 'text/csv' }));
  element('a', { href: address, download: 'scores.csv' }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function sortTable(heading) {
  const headings = [...heading.parentElement.children];
  const column = headings.indexOf(heading);
  const direction = heading.ariaSort === 'ascending' ? -1 : 1;
  headings.forEach(each => { each.ariaSort = 'none'; });
  heading.ariaSort = direction === 1 ? 'ascending' : 'descending';
  const key = row => row.children[column].dataset.value ?? row.children[column].textContent;
  const body = document.querySelector('#table .clips');
  const compare = (one, other) => column < 2
    ? direction * one.localeCompare(other, undefined, { numeric: true })
    : Number.isNaN(+one) - Number.isNaN(+other) || direction * (one - other || 0);
  body.append(...[...body.rows].sort((one, other) => compare(key(one), key(other))));
}

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches('input[type=text], select')) return;
  const isRating = target.matches('.rate input');
  const act = {
    ' ': () => target.matches('button:not(.source > button, #play)') ? false : toggle(),
    ArrowLeft: () => isRating ? false : player.seek(player.position - STEP),
    ArrowRight: () => isRating ? false : player.seek(player.position + STEP),
    ArrowUp: () => isRating ? false : rate(event.shiftKey ? 10 : 1),
    ArrowDown: () => isRating ? false : rate(event.shiftKey ? -10 : -1),
    n: () => place + 1 < data.clips.length && show(place + 1),
    p: () => place > 0 && show(place - 1),
  }[key] ?? (/^[1-9]$/.test(key) ? () => select(key - 1) : () => false);
  if (act() !== false) event.preventDefault();
}

function rate(difference) {
  const slider = byId('sources').children[choice].querySelector('.rate input');
  if (!slider || slider.disabled) return false;
  slider.valueAsNumber = slider.valueAsNumber + difference;
  slider.oninput();
}

function showPosition() {
  const { position, duration } = player;
  byId('seek').value = position / duration || 0;
  byId('time').textContent = `${position.toFixed(1)} / ${duration.toFixed(1)} s`;
  byId('sources').style.setProperty('--at', position / duration || 0);
  requestAnimationFrame(showPosition);
}

byId('highest').textContent = data.rate / 2000;
byId('listener').value = session.listener;
byId('listener').oninput = ({ target }) => { session.listener = target.value; storeSession(); };
byId('open').onclick = () => setMode(false);
byId('blind').onclick = () => setMode(true);
byId('play').onclick = toggle;
byId('seek').oninput = ({ target }) => player.seek(target.value * player.duration);
byId('clip').onchange = ({ target }) => show(+target.value);
byId('previous').onclick = () => show(place - 1);
byId('next').onclick = () => show(place + 1);
byId('finish').onclick = finish;
byId('download').onclick = download;
byId('restart').onclick = () => {
  if (!confirm('Forget these ratings and begin anew?')) return;
  session = { ...newSession(), listener: session.listener };
  storeSession();
  setMode(true);
};
document.querySelectorAll('#table thead th').forEach(heading => {
  heading.firstChild.onclick = () => sortTable(heading);
});
document.addEventListener('keydown', onKey);
// After a click the space bar plays, and does not press the same button again.
document.addEventListener('click', ({ detail, target }) => detail && target.closest('button')?.blur());
byId('figures').hidden = !document.querySelector('#table');
byId('player').hidden = false;
setMode(false);
requestAnimationFrame(showPosition);
