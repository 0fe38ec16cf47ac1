// Speaks to the server: JSON over /api/v1, with the token of this browser tab, and errors that say what to do.

const BASE = '/api/v1';
const TOKEN_KEY = 'mainstem-token';
const ANSWER_MS_MAX = 20_000;
// What a stream may hold that is no complete event yet.
const EVENT_CHARACTERS_MAX = 1_000_000;

class ApiError extends Error {
  constructor(status, code, message, line = null, column = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.line = line;
    this.column = column;
  }
}

export const token = {
  // Kept for this tab only: it is gone when the tab is closed.
  get: () => sessionStorage.getItem(TOKEN_KEY),
  set: (value) => (value ? sessionStorage.setItem(TOKEN_KEY, value) : sessionStorage.removeItem(TOKEN_KEY)),
};

// Told of every answer that a token is missing or wrong.
export const access = { refused: () => {} };

function headers(extra) {
  const bearer = token.get();
  return bearer ? { ...extra, Authorization: `Bearer ${bearer}` } : { ...extra };
}

// A path below /api/v1; its parts are escaped.
export const path = (...parts) => `${BASE}/${parts.map(encodeURIComponent).join('/')}`;

async function ask(method, address, { body, signal } = {}) {
  const limit = AbortSignal.timeout(ANSWER_MS_MAX);
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers: headers(
        body === undefined
          ? { Accept: 'application/json' }
          : { Accept: 'application/json', 'Content-Type': 'application/json' },
      ),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch (error) {
    throw unreachable(error, method);
  }
  const text = await answer.text().catch((error) => {
    throw unreachable(error, method);
  });
  const value = parse(text);
  if (answer.ok) {
    if (value === undefined) throw new ApiError(answer.status, 'bug', `The answer to ${method} ${address} is not JSON.`);
    return value;
  }
  throw refusal(answer.status, value, `${method} ${address}`);
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return undefined;
  }
}

function unreachable(error, method) {
  if (error.name === 'TimeoutError') {
    const unknown = method === 'GET' ? '' : ' It is not known whether this was done: look before you ask again.';
    return new ApiError(0, 'timeout', `The server has not answered within ${ANSWER_MS_MAX / 1000} s.${unknown}`);
  }
  if (error.name === 'AbortError') return error;
  const unknown = method === 'GET' ? '' : ' Whether this was done is not known.';
  return new ApiError(0, 'unreachable', `The server cannot be reached.${unknown}`);
}

function refusal(status, value, what) {
  const error = (value && value.error) || {};
  if (status === 401) access.refused();
  return new ApiError(
    status,
    error.code || 'bug',
    error.message || `${what} was answered with status ${status}.`,
    error.line ?? null,
    error.column ?? null,
  );
}

export const get = (address, signal) => ask('GET', address, { signal });
export const post = (address, body = {}, signal) => ask('POST', address, { body, signal });
export const remove = (address) => ask('DELETE', address);

// Follows a stream of events until `signal` ends it, and comes back after every interruption. `EventSource` could not send
// the token. A hidden page follows nothing: browsers have few connections to one server, and each tab would hold one.
export async function follow(address, signal, onEvent) {
  let last = null;
  for (let failures = 0; !signal.aborted;) {
    await visible(signal);
    const hidden = new AbortController();
    const hide = () => {
      if (document.hidden) hidden.abort();
    };
    document.addEventListener('visibilitychange', hide);
    try {
      const extra = last ? { Accept: 'text/event-stream', 'Last-Event-ID': last } : { Accept: 'text/event-stream' };
      const answer = await fetch(address, {
        headers: headers(extra),
        signal: AbortSignal.any([signal, hidden.signal]),
        cache: 'no-store',
        credentials: 'omit',
      });
      if (answer.status === 401) access.refused();
      // No such job, or no such stream: asking again would not help.
      if ([400, 403, 404, 501].includes(answer.status)) return;
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      for await (const event of events(answer.body)) {
        failures = 0;
        last = event.id || last;
        if (event.data) onEvent(event.event, event.data);
        if (event.event === 'gone') return;
      }
    } catch {
      if (signal.aborted) return;
    } finally {
      document.removeEventListener('visibilitychange', hide);
    }
    if (hidden.signal.aborted) continue;
    failures += 1;
    await pause(Math.min(500 * 2 ** failures, 15_000), signal);
  }
}

// Comes when the page can be seen.
function visible(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener('visibilitychange', look);
      signal.removeEventListener('abort', look);
      resolve();
    };
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', look);
    look();
  });
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    if (held.length > EVENT_CHARACTERS_MAX) throw new Error('an event is too long');
    const blocks = held.split(/\r?\n\r?\n/);
    held = blocks.pop();
    for (const block of blocks) yield eventOf(block);
  }
}

function eventOf(block) {
  const event = { id: null, event: 'message', data: null };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) || [];
    if (name === 'data') event.data = parse(value);
    else if (name === 'id' || name === 'event') event[name] = value;
  }
  return event;
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
