'use strict';

const FADE = 0.01; // seconds from one sound to another

const byId = id => document.getElementById(id);
const data = JSON.parse(byId('data').textContent);

// Decoding. Buffers have the clips' own rate, whatever the device's is.

async function decode(clip, source) {
  const text = atob(byId(`sound-${clip}-${source}`).textContent);
  const bytes = Uint8Array.from(text, letter => letter.charCodeAt(0));
  return new OfflineAudioContext(1, 1, data.rate).decodeAudioData(bytes.buffer);
}

async function lowPass(buffer, taps) {
  const { numberOfChannels, length, sampleRate } = buffer;
  const delay = (taps.length - 1) / 2;
  const offline = new OfflineAudioContext(numberOfChannels, length + delay, sampleRate);
  const kernel = offline.createBuffer(1, taps.length, sampleRate);
  kernel.copyToChannel(Float32Array.from(taps), 0);
  const input = new AudioBufferSourceNode(offline, { buffer });
  input.connect(new ConvolverNode(offline, { buffer: kernel, disableNormalization: true }))
    .connect(offline.destination);
  input.start();
  const rendered = await offline.startRendering();
  const result = offline.createBuffer(numberOfChannels, length, sampleRate);
  for (let channel = 0; channel < numberOfChannels; channel++) {
    result.copyToChannel(rendered.getChannelData(channel).subarray(delay), channel);
  }
  return result;
}

async function loadClip(clip) {
  const decoded = await Promise.all([0, ...data.models.keys()].map((_, source) => decode(clip, source)));
  const filtered = await Promise.all(data.anchors.map(({ taps }) => lowPass(decoded[0], taps)));
  return [...decoded, ...filtered];
}

// The player starts all sources of a clip together, and lets one be heard.

const player = {
  context: null, buffers: [], gains: [], levels: [], master: null, nodes: [],
  source: 0, offset: 0, started: 0, playing: false,

  get duration() { return this.buffers.length ? this.buffers[0].duration : 0; },
  get position() {
    if (!this.playing) return this.offset;
    return Math.max(0, this.context.currentTime - this.started) % this.duration;
  },
  insert(buffers, gains) {
    this.pause();
    Object.assign(this, { buffers, gains, offset: 0 });
  },
  play() {
    if (this.playing || !this.buffers.length) return;
    this.context ??= makeContext();
    this.context.resume();
    const begin = this.context.currentTime + FADE;
    this.master = new GainNode(this.context, { gain: 0 });
    this.master.connect(this.context.destination);
    this.ramp(this.master.gain, 1, begin);
    this.levels = this.gains.map((gain, source) =>
      new GainNode(this.context, { gain: source === this.source ? gain : 0 }));
    this.nodes = this.buffers.map((buffer, source) => {
      const node = new AudioBufferSourceNode(this.context, { buffer, loop: true });
      node.connect(this.levels[source]).connect(this.master);
      node.start(begin, this.offset);
      return node;
    });
    this.started = begin - this.offset;
    this.playing = true;
  },
  pause() {
    if (!this.playing) return;
    this.offset = this.position;
    this.playing = false;
    const { nodes, master } = this;
    this.ramp(master.gain, 0, this.context.currentTime);
    nodes.forEach(node => node.stop(this.context.currentTime + 2 * FADE));
    nodes[0].onended = () => master.disconnect();
  },
  select(source) {
    this.source = source;
    if (!this.playing) return;
    this.levels.forEach((level, each) =>
      this.ramp(level.gain, each === source ? this.gains[each] : 0, this.context.currentTime));
  },
  seek(seconds) {
    const wasPlaying = this.playing;
    this.pause();
    this.offset = Math.min(Math.max(seconds, 0), this.duration - 0.01);
    if (wasPlaying) this.play();
  },
  ramp(parameter, value, begin) {
    parameter.cancelScheduledValues(begin);
    parameter.setValueAtTime(parameter.value, begin);
    parameter.linearRampToValueAtTime(value, begin + FADE);
  },
};

function makeContext() {
  try {
    return new AudioContext({ sampleRate: data.rate });
  } catch {
    return new AudioContext(); // which resamples
  }
}
