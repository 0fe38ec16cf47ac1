// Asks for something again and again, and knows how old the last answer is.
//
// Nothing is asked while the page is hidden, never twice at the same time, and more rarely while there is no answer. The last
// answer stays while newer ones are missing; `age` and `error` let views mark it as old.

const WAIT_MS_MAX = 5000;

export class Poll {
  // `load(signal)` gives a promise of the answer; `changed` is called whenever there is something new to draw.
  constructor({ load, every, changed }) {
    this.load = load;
    this.every = every;
    this.changed = changed;
    this.data = null;
    this.error = null;
    this.at = null;
    this.failures = 0;
    this.timer = null;
    this.running = null;
    this.closed = false;
    this.again = false;
    this.onVisible = () => {
      if (!document.hidden) this.now();
    };
    document.addEventListener('visibilitychange', this.onVisible);
    this.now();
  }

  // Milliseconds since the last answer; null before the first.
  get age() {
    return this.at === null ? null : performance.now() - this.at;
  }

  // Whether what is shown is older than it should be. A hidden page is not: it catches up when it is looked at.
  get stale() {
    return this.data !== null && (this.error !== null || this.age > this.every * 3 + 2000);
  }

  // Asks at once; when a question is under way, once more after its answer.
  now() {
    clearTimeout(this.timer);
    if (this.closed || document.hidden) return;
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = new AbortController();
    this.ask(this.running.signal);
  }

  async ask(signal) {
    try {
      this.data = await this.load(signal);
      this.error = null;
      this.failures = 0;
      this.at = performance.now();
    } catch (error) {
      if (this.closed) return;
      this.error = error;
      this.failures += 1;
    }
    if (this.closed) return;
    this.running = null;
    const wait = this.again ? 0 : Math.min(this.every * 2 ** Math.min(this.failures, 4), Math.max(WAIT_MS_MAX, this.every));
    this.again = false;
    this.timer = setTimeout(() => this.now(), wait);
    this.changed();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    if (this.running) this.running.abort();
    document.removeEventListener('visibilitychange', this.onVisible);
  }
}
