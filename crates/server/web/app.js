// The page: its frame, which view is open, keys, dialogs, and what it says about the connection.

import { h, patch } from './lib/dom.js';
import { access, get, path, token } from './lib/api.js';
import { Poll } from './lib/poll.js';
import { parse, href, go } from './lib/router.js';
import { choice, switchTheme } from './lib/theme.js';
import { duration } from './lib/format.js';
import { icon } from './ui/icons.js';
import { notice } from './ui/parts.js';
import { helpDialog, tokenDialog } from './ui/dialogs.js';
import { JobsView } from './views/jobs.js';
import { JobView } from './views/job.js';
import { ClusterView } from './views/cluster.js';
import { AuditView } from './views/audit.js';
import { SqlView } from './views/sql.js';
import { MissingView } from './views/missing.js';

const SESSION_MS = 10_000;
const TOLD_MS = 8000;
const SEQUENCE_MS = 1500;

const NAV = [
  ['jobs', 'Jobs', 'j'],
  ['sql', 'SQL', 's'],
  ['cluster', 'Cluster', 'c'],
  ['audit', 'Audit trail', 'a'],
];

class App {
  constructor() {
    this.root = document.getElementById('page');
    this.view = null;
    this.dialog = null;
    this.told = [];
    this.waiting = false;
    this.sequence = null;
    this.session = new Poll({
      load: (signal) => get(path('session'), signal),
      every: SESSION_MS,
      changed: () => this.redraw(),
    });
    access.refused = () => this.askToken();
    addEventListener('hashchange', () => this.route());
    addEventListener('keydown', (event) => this.key(event));
    // Ages go on also when nothing comes.
    setInterval(() => this.redraw(), 1000);
    this.route();
  }

  // What this user may do, as far as it is known.
  may(role) {
    const roles = ['viewer', 'operator', 'admin'];
    return this.session.data ? roles.indexOf(this.session.data.role) >= roles.indexOf(role) : false;
  }

  get oneProcess() {
    return Boolean(this.session.data && this.session.data.mode === 'run');
  }

  route() {
    const address = parse(location.hash);
    const type =
      {
        undefined: JobsView,
        jobs: address.path.length > 1 ? JobView : JobsView,
        cluster: ClusterView,
        audit: AuditView,
        sql: SqlView,
      }[address.path[0]] || MissingView;
    const changed = this.shown !== undefined && this.shown !== address.path.join('/');
    this.shown = address.path.join('/');
    if (this.view && this.view.constructor === type && this.view.moved && this.view.moved(address)) {
      this.redraw();
      return;
    }
    if (this.view) this.view.close();
    this.view = new type(this, address);
    this.redraw();
    if (changed) {
      // Who uses the keyboard or a screen reader begins at the top of the new view.
      scrollTo(0, 0);
      requestAnimationFrame(() => {
        const main = document.getElementById('main');
        if (main && !this.dialog) main.focus({ preventScroll: true });
        this.announce(this.view.title);
      });
    }
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    document.title = `${this.view.title} · Mainstem`;
    const stale = this.staleness();
    this.root.classList.toggle('stale', stale !== null);
    patch(
      this.root,
      h(
        'button',
        { class: 'skip', type: 'button', on: { click: () => document.getElementById('main').focus() } },
        'Skip to content',
      ),
      this.header(stale),
      h(
        'div',
        { class: 'notices', key: 'notices' },
        stale
          ? notice(
              stale.kind,
              stale.label,
              stale.text,
              stale.age ? h('span', { class: 'muted nowrap', 'aria-hidden': 'true' }, `${duration(stale.age)} old`) : null,
            )
          : null,
        this.told.map((one) =>
          h(
            'div',
            { key: one.id },
            notice(
              one.kind,
              one.label,
              one.text,
              h(
                'button',
                { type: 'button', class: 'plain icon', 'aria-label': 'Dismiss', on: { click: () => this.untell(one.id) } },
                icon('close'),
              ),
            ),
          ),
        ),
      ),
      h(
        'main',
        { id: 'main', tabindex: '-1', key: 'main' },
        h('div', { key: this.view.key || this.view.nav }, this.view.draw()),
      ),
      this.dialog ? h('div', { key: 'dialog' }, this.dialog.draw()) : null,
    );
  }

  // Why what is shown may not be true now; null if it is.
  staleness() {
    const polls = [...(this.view.polls || [])];
    const broken =
      polls.find((poll) => poll.error && poll.data) ||
      (this.session.error && this.session.error.status !== 401 ? this.session : null);
    if (broken && broken.error) {
      return { kind: 'bad', label: 'No new figures.', text: broken.error.message, age: broken.age };
    }
    const old = polls.find((poll) => poll.stale);
    if (old) return { kind: 'bad', label: 'No new figures.', text: 'The server is slow to answer.', age: old.age };
    if (polls.some((poll) => poll.data && poll.data.stale)) {
      return {
        kind: 'warn',
        label: 'Maybe old.',
        text: 'This coordinator does not lead and cannot reach the one that does. It shows what it knows itself; live figures are missing.',
      };
    }
    return null;
  }

  header(stale) {
    const session = this.session.data;
    const [dot, text] = this.linkState(stale);
    const theme = choice();
    return h(
      'header',
      { class: 'topbar', key: 'top' },
      h('a', { class: 'brand', href: href(['jobs']) }, icon('brand'), 'Mainstem'),
      h(
        'nav',
        { 'aria-label': 'Main' },
        NAV.filter(([id]) => id !== 'audit' || !this.oneProcess).map(([id, label]) =>
          h('a', { key: id, href: href([id]), 'aria-current': this.view.nav === id ? 'page' : undefined }, label),
        ),
      ),
      h(
        'div',
        { class: 'end' },
        h(
          'span',
          { class: 'link-state', title: session ? `${session.node}, version ${session.version}` : undefined },
          h('span', { class: `dot ${dot}` }),
          text,
        ),
        session && session.authenticated
          ? h(
              'button',
              {
                type: 'button',
                class: 'plain icon',
                key: 'token',
                title: `${session.user}, role ${session.role}`,
                'aria-label': `Access: role ${session.role}. Change the token`,
                on: { click: () => this.askToken(true) },
              },
              icon('key'),
            )
          : null,
        h(
          'button',
          {
            type: 'button',
            class: 'plain icon',
            key: 'theme',
            title: `Colours: ${theme}`,
            'aria-label': `Colours: ${theme}. Switch`,
            on: {
              click: () => {
                switchTheme();
                this.announce(`Colours: ${choice()}`);
                this.redraw();
              },
            },
          },
          icon(theme),
        ),
        h(
          'button',
          {
            type: 'button',
            class: 'plain icon',
            key: 'help',
            title: 'Keys (?)',
            'aria-label': 'Keyboard shortcuts',
            on: { click: () => this.open(helpDialog(this)) },
          },
          icon('help'),
        ),
      ),
    );
  }

  // What the light in the header says.
  linkState(stale) {
    if (stale) return [stale.kind, stale.kind === 'bad' ? 'not live' : 'maybe old'];
    if (this.session.error) return ['bad', this.session.error.status === 401 ? 'no access' : 'not live'];
    return this.session.data ? ['ok', 'live'] : ['', 'connecting'];
  }

  // Says something to who does not see the page.
  announce(text) {
    document.getElementById('announcer').textContent = text;
  }

  // Shows a message that goes by itself; errors stay until they are dismissed.
  tell(kind, label, text = '') {
    const id = `${performance.now()} ${this.told.length}`;
    this.told = [...this.told.slice(-4), { id, kind, label, text }];
    if (kind !== 'bad') setTimeout(() => this.untell(id), TOLD_MS);
    this.redraw();
  }

  untell(id) {
    this.told = this.told.filter((one) => one.id !== id);
    this.redraw();
  }

  open(dialog) {
    this.opener = document.activeElement;
    this.dialog = dialog;
    this.redraw();
  }

  shut() {
    this.dialog = null;
    this.draw();
    if (this.opener && this.opener.isConnected) this.opener.focus();
  }

  askToken(change = false) {
    if (this.dialog && this.dialog.asksToken) return;
    this.open(tokenDialog(this, change));
  }

  // After a token was entered everything is asked anew.
  entered(value) {
    token.set(value);
    this.session.now();
    for (const poll of this.view.polls || []) poll.now();
    if (this.view.entered) this.view.entered();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.dialog || event.defaultPrevented) return;
    if (event.target.closest('input, textarea, select')) return;
    if (this.sequence && performance.now() - this.sequence < SEQUENCE_MS) {
      this.sequence = null;
      const entry = NAV.find(([, , key]) => key === event.key);
      if (entry) {
        event.preventDefault();
        go([entry[0]]);
        return;
      }
    }
    if (event.key === 'g') this.sequence = performance.now();
    else if (event.key === '?') this.open(helpDialog(this));
    else if (event.key === '/') {
      const filter = document.getElementById('filter');
      if (!filter) return;
      filter.focus();
    } else if (event.key === 't') {
      switchTheme();
      this.redraw();
    } else if (event.key === 'r') for (const poll of this.view.polls || []) poll.now();
    else if (this.view.pressed && this.view.pressed(event)) event.preventDefault();
    if (event.key === '/' || event.key === '?') event.preventDefault();
  }
}

new App();
