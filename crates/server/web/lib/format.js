// Numbers, sizes, times and names as people read them. Whatever is not known is a dash, never a zero.

export const NONE = '–';

// Made once: a list has hundreds of such numbers each time it is drawn, and to make one of these takes longer than to use it.
const WHOLE = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const NATURAL = new Intl.Collator('en', { numeric: true });

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

// 950, 12.3 k, 4.56 M: three digits that matter.
export function count(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  if (size > 0 && size < 0.05) return '<0.1';
  if (size < 10 && size !== Math.round(size)) return value.toFixed(1);
  if (size < 10_000) return String(Math.round(value));
  for (const [unit, name] of [
    [1e3, 'k'],
    [1e6, 'M'],
    [1e9, 'G'],
    [1e12, 'T'],
  ]) {
    if (size < unit * 999.5) return `${digits(value / unit)} ${name}`;
  }
  return value.toExponential(2);
}

// The whole number with its thousands apart, for titles.
export function exact(value) {
  return known(value) ? WHOLE.format(value).replaceAll(',', ' ') : NONE;
}

// The order of names: job-9 stands before job-10.
export function inOrder(a, b) {
  return NATURAL.compare(a, b);
}

export function rate(value) {
  return known(value) ? `${count(value)}/s` : NONE;
}

export function bytes(value) {
  if (!known(value)) return NONE;
  if (Math.abs(value) < 1000) return `${Math.round(value)} B`;
  for (const [unit, name] of [
    [1e3, 'kB'],
    [1e6, 'MB'],
    [1e9, 'GB'],
    [1e12, 'TB'],
  ]) {
    if (Math.abs(value) < unit * 999.5) return `${digits(value / unit)} ${name}`;
  }
  return `${digits(value / 1e15)} PB`;
}

function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

// A length of time given in milliseconds.
export function duration(ms) {
  if (!known(ms)) return NONE;
  if (ms < 0) return `-${duration(-ms)}`;
  if (ms < 1) return ms === 0 ? '0 ms' : '<1 ms';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const parts = [
    ['d', 86400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ];
  const years = seconds / 31_557_600;
  if (years >= 2) return `${years.toFixed(1)} years`;
  const first = parts.findIndex(([, length]) => Math.round(seconds) >= length);
  const [name, length] = parts[first];
  const whole = Math.floor(Math.round(seconds) / length);
  const rest = parts[first + 1];
  if (!rest || whole >= 100) return `${whole} ${name}`;
  const small = Math.floor((Math.round(seconds) - whole * length) / rest[1]);
  return `${whole} ${name} ${small} ${rest[0]}`;
}

export function ago(ms) {
  if (!known(ms)) return NONE;
  return ms < 1000 ? 'now' : `${duration(ms)} ago`;
}

// How far a watermark is behind `now`.
export function behind(watermark, now) {
  return known(watermark) ? `−${duration(Math.max(0, now - watermark))}` : NONE;
}

export function percent(share) {
  return known(share) ? `${Math.round(share * 100)} %` : NONE;
}

const two = (n) => String(n).padStart(2, '0');

// A moment by the clock of whoever looks: the time alone if it was today.
export function clock(ms, now = Date.now()) {
  if (!known(ms)) return NONE;
  const at = new Date(ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const today = new Date(now);
  if (at.toDateString() === today.toDateString()) return time;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

// Event time, in UTC as the rows have it.
export function eventTime(ms) {
  if (!known(ms)) return NONE;
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return String(ms);
  return at
    .toISOString()
    .replace('T', ' ')
    .replace(/(\.000)?Z$/, '');
}

// Event time without what the reader knows: the time if it is of today, else the day and the minute.
export function utcShort(ms, now) {
  const text = eventTime(ms);
  return text.slice(0, 10) === eventTime(now).slice(0, 10) ? text.slice(11, 19) : text.slice(0, 16);
}

export function plural(number, one) {
  return `${exact(number)} ${number === 1 ? one : `${one}s`}`;
}
