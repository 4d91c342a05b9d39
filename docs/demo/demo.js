"use strict";
// A waveform at 16 kHz goes into model.onnx, which holds the whole way to probabilities.
const facts = JSON.parse(document.getElementById("facts").textContent);
const find = (id) => document.getElementById(id);
const WINDOW_SECONDS = 3, HOP_SECONDS = 1, LIVE_HOP_SECONDS = 0.25, LIVE_COLUMNS = 120;
const LIVE_EDGES = Array.from({ length: LIVE_COLUMNS + 1 }, (_, column) => column / LIVE_COLUMNS);
const LONGEST_SECONDS = 600, LARGEST_BYTES = 50e6;
const FRAME = 1024, HOP = 256;
let session, live;

// Powers of frames of 64 ms, every 16 ms, as in common/loudness.py.
function measureFrames(samples) {
  const powers = [];
  for (let middle = 0; middle <= samples.length; middle += HOP) {
    let power = 0;
    for (let at = Math.max(0, middle - FRAME / 2); at < Math.min(samples.length, middle + FRAME / 2); at++)
      power += samples[at] ** 2;
    powers.push(Math.max(power / FRAME, 1e-30));
  }
  return powers;
}

// Whether a recording is answered for at once, once the silence around it is cut.
function hearsWhole(samples) {
  const powers = measureFrames(samples), most = powers.reduce((a, b) => Math.max(a, b));
  const isSpeech = (power) => power > most * 10 ** (-facts.range_db / 10);
  const frames = powers.findLastIndex(isSpeech) + 1 - powers.findIndex(isSpeech);
  return frames * HOP <= facts.longest_whole_seconds * facts.rate;
}

// Why there is nothing to recognise, by the rules of common/activity.py; "" where there is.
function explainAbstention(samples) {
  const { rate, range_db, silence_peak, shortest_seconds, activity } = facts;
  if (samples.length < shortest_seconds * rate) return "too short: say a sentence";
  const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  if (peak < silence_peak) return "silent: check the microphone";
  const powers = measureFrames(samples);
  const decibels = (power) => 10 * Math.log10(power);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const select = (values) => values.filter((value) => value > Math.max(...values) * 10 ** (-range_db / 10));
  const inner = powers.length > 8 ? powers.slice(2, -2) : powers;
  const sorted = inner.map(decibels).sort((a, b) => a - b), place = 0.1 * (sorted.length - 1);
  const low = sorted[Math.floor(place)], high = sorted[Math.ceil(place)];
  const level = decibels(mean(select(powers))), softest = low + (high - low) * (place % 1);
  const floor = Math.max(sorted.at(-1) - range_db, softest + activity.smallest_contrast_db);
  let run = 0, longest = 0, frames = 0;
  for (const power of inner) {
    run = decibels(power) > floor ? run + 1 : 0;
    frames += run > 0;
    longest = Math.max(longest, run);
  }
  if (level < activity.faintest_db) return "silent: check the microphone";
  if (level - softest < activity.smallest_contrast_db) return "no speech, or too noisy: come closer to the microphone";
  if (longest * HOP / rate < activity.shortest_run_seconds) return "only clicks: say a sentence";
  if (frames * HOP / rate < activity.shortest_speech_seconds) return "too little sound: say a sentence";
  return "";
}

// Probabilities of one window of samples at 16 kHz, in the order of facts.emotions.
async function predict(samples) {
  const waveform = new ort.Tensor("float32", samples, [samples.length]);
  return [...(await session.run({ waveform })).probabilities.data];
}

async function listen(samples) {
  const reason = explainAbstention(samples);
  return reason ? { reason } : { probabilities: await predict(samples) };
}

// Results of windows of so many seconds, and where each starts.
async function listenAlong(samples, windowSeconds, hopSeconds) {
  const size = Math.round(windowSeconds * facts.rate), hop = Math.round(hopSeconds * facts.rate), results = [];
  for (let start = 0; !start || start + size < samples.length + hop; start += hop)
    results.push(await listen(samples.slice(start, start + size)));
  return results;
}

// One answer for a recording: of a long one the geometric mean over its windows.
async function listenToAll(samples) {
  const whole = explainAbstention(samples) ? { reason: explainAbstention(samples) } : null;
  if (whole || hearsWhole(samples)) return whole ?? listen(samples);
  const results = await listenAlong(samples, facts.window_seconds, facts.window_seconds / 2);
  const heard = results.flatMap(({ probabilities }) => (probabilities ? [probabilities] : []));
  if (!heard.length) return results[0];
  const product = facts.emotions.map((_, n) =>
    Math.exp(heard.reduce((sum, row) => sum + Math.log(row[n] + 1e-12), 0) / heard.length));
  const total = product.reduce((sum, value) => sum + value);
  return { probabilities: product.map((value) => value / total) };
}

async function resample(samples, rate) {
  if (rate === facts.rate) return samples;
  const context = new OfflineAudioContext(1, Math.ceil(samples.length * facts.rate / rate), facts.rate);
  const source = context.createBufferSource();
  source.buffer = context.createBuffer(1, samples.length, rate);
  source.buffer.copyToChannel(samples, 0);
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

function show({ reason, probabilities }) {
  find("bars").classList.toggle("pale", !probabilities);
  find("answer").classList.toggle("none", !probabilities);
  if (!probabilities) return void (find("answer").textContent = `No answer: ${reason}.`);
  const best = probabilities.indexOf(Math.max(...probabilities));
  find("answer").textContent = `${facts.emotions[best]}, ${Math.round(100 * probabilities[best])} %`;
  probabilities.forEach((probability, number) => {
    const row = find("bars").children[number];
    row.dataset.probability = probability;
    row.querySelector(".fill").style.width = `${100 * probability}%`;
    row.querySelector(".share").textContent = `${Math.round(100 * probability)} %`;
  });
}

// A column per window, the probabilities stacked, at `edges` from 0 to 1; the waveform below, if any.
function draw(results, edges, waveform = null) {
  const canvas = find("timeline"), pen = canvas.getContext("2d");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((size) => size * devicePixelRatio);
  Object.assign(canvas, { width, height });
  const chart = waveform ? 0.68 * height : height;
  results.forEach(({ probabilities }, column) => {
    let top = chart;
    const [left, right] = [edges[column], edges[column + 1]].map((edge) => edge * width);
    (probabilities ?? []).forEach((probability, number) => {
      pen.fillStyle = facts.colours[number];
      top -= probability * chart;
      pen.fillRect(left, top, right - left + 0.5, probability * chart + 0.5);
    });
  });
  if (!waveform) return;
  pen.fillStyle = "#8C8C8C";
  const size = waveform.length / width, middle = (chart + height) / 2;
  const peak = waveform.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-9);
  for (let x = 0; x < width; x++) {
    const part = waveform.subarray(Math.floor(x * size), Math.floor((x + 1) * size) + 1);
    const half = (Math.max(...part) - Math.min(...part)) / 2 / peak * (height - chart) / 2;
    pen.fillRect(x, middle - half, 1, Math.max(1, 2 * half));
  }
}

async function hearFile(file) {
  if (live) await stop();
  find("answer").textContent = "Listening …";
  try {
    if (file.size > LARGEST_BYTES) throw new Error("it has more than 50 MB; cut it");
    const context = new OfflineAudioContext(1, 1, facts.rate);
    const sound = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
      throw new Error("this browser finds no sound in it; export it as WAV, MP3 or M4A");
    });
    if (sound.duration > LONGEST_SECONDS) throw new Error("it is longer than ten minutes; cut it");
    const samples = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++)
      sound.getChannelData(channel).forEach((x, at) => (samples[at] += x / sound.numberOfChannels));
    show(await listenToAll(samples));
    const results = await listenAlong(samples, WINDOW_SECONDS, HOP_SECONDS);
    const middles = results.map((_, number) => number * HOP_SECONDS + (WINDOW_SECONDS - HOP_SECONDS) / 2);
    draw(results, [0, ...middles.slice(1).map((start) => start / sound.duration), 1], samples);
    find("axis").textContent = `${file.name}, ${sound.duration.toFixed(1)} s: probabilities in windows of `
      + `${WINDOW_SECONDS} s, stacked; blank where there is no speech.`;
  } catch (error) {
    show({ reason: `${file.name} cannot be heard, ${error.message}` });
  }
}

const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([[samples]]) { if (samples) this.port.postMessage(samples.slice()); return true }
})`;

async function start() {
  const context = new AudioContext();
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const url = URL.createObjectURL(new Blob([TAP], { type: "text/javascript" }));
  await context.audioWorklet.addModule(url);
  URL.revokeObjectURL(url);
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const ring = new Float32Array(WINDOW_SECONDS * context.sampleRate);
  let filled = 0;
  tap.port.onmessage = ({ data }) => {
    ring.copyWithin(0, data.length);
    ring.set(data, ring.length - data.length);
    filled = Math.min(ring.length, filled + data.length);
  };
  context.createMediaStreamSource(stream).connect(tap);
  const mine = (live = { context, stream });
  find("microphone").classList.add("on");
  find("microphone").textContent = "Stop";
  find("axis").textContent = `The last ${LIVE_COLUMNS * LIVE_HOP_SECONDS} s, each column from ${WINDOW_SECONDS} s of sound.`;
  const results = [];
  while (live === mine) {
    await new Promise((done) => setTimeout(done, 1000 * LIVE_HOP_SECONDS));
    if (!filled) continue;
    const result = await listen(await resample(ring.slice(ring.length - filled), context.sampleRate));
    if (live !== mine) return;
    results.push(result);
    show(result);
    draw(results.slice(-LIVE_COLUMNS), LIVE_EDGES);
  }
}

async function stop() {
  live.stream.getTracks().forEach((track) => track.stop());
  await live.context.close();
  live = null;
  find("microphone").classList.remove("on");
  find("microphone").textContent = "Use the microphone";
}

async function load() {
  find("trust").textContent = facts.trust;
  facts.emotions.forEach((emotion, number) => {
    const row = document.createElement("li");
    row.dataset.emotion = emotion;
    row.innerHTML = '<span></span><div class="track"><div class="fill"></div></div><span class="share"></span>';
    row.firstChild.textContent = emotion;
    row.querySelector(".fill").style.background = facts.colours[number];
    find("bars").append(row);
  });
  try {
    ort.env.wasm.numThreads = 1;
    session = await ort.InferenceSession.create("model.onnx");
    await predict(new Float32Array(facts.rate));
  } catch (error) {
    return show({ reason: `the network cannot be loaded (${error.message}); reload the page, or take a newer browser` });
  }
  find("microphone").disabled = find("file").disabled = false;
  find("answer").textContent = "Speak, or choose a recording.";
}

find("microphone").onclick = () =>
  (live ? stop() : start()).catch((error) => show({ reason: `no microphone, ${error.message}` }));
find("file").onchange = ({ target }) => {
  if (target.files.length) hearFile(target.files[0]).finally(() => (target.value = ""));
};
load();
