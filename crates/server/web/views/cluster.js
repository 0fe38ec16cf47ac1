// The workers with their slots, and the coordinators with what they agree on.

import { h } from '../lib/dom.js';
import { get, path, post } from '../lib/api.js';
import { Poll } from '../lib/poll.js';
import { href } from '../lib/router.js';
import { received } from '../lib/clock.js';
import { exact, plural, NONE } from '../lib/format.js';
import { actionDialog } from '../ui/dialogs.js';
import { chip, failed, figures, panel, unansweredPanel } from '../ui/parts.js';
import { table } from '../ui/table.js';

const EVERY_MS = 2000;
const CONFIGURATION_MS = 30_000;
const JOBS_SHOWN = 6;

export class ClusterView {
  constructor(app) {
    this.app = app;
    this.title = 'Cluster';
    this.nav = 'cluster';
    this.order = { by: 'name', down: false };
    const poll = (route, every) =>
      new Poll({ load: (signal) => get(path(route), signal).then(received), every, changed: () => app.redraw() });
    this.workers = poll('workers', EVERY_MS);
    this.coordinators = poll('coordinators', EVERY_MS);
    this.configuration = poll('configuration', CONFIGURATION_MS);
    this.polls = [this.workers, this.coordinators, this.configuration];
  }

  draw() {
    return [
      h('div', { class: 'head' }, h('h1', null, 'Cluster')),
      h('div', { class: 'stack live' }, this.summary(), this.workerList(), this.coordinatorList(), this.settings()),
    ];
  }

  summary() {
    const workers = this.workers.data ? this.workers.data.workers : null;
    const raft = this.coordinators.data;
    const sum = (figure) => (workers ? workers.reduce((total, worker) => total + worker[figure], 0) : null);
    const free = workers
      ? workers.filter((worker) => !worker.draining).reduce((total, worker) => total + worker.slots - worker.used, 0)
      : null;
    return figures([
      {
        label: 'Workers',
        value: workers ? exact(workers.length) : NONE,
        note: workers ? `${workers.filter((worker) => worker.draining).length} drained` : '',
      },
      {
        label: 'Slots in use',
        value: workers ? `${sum('used')} of ${sum('slots')}` : NONE,
        note: workers ? `${free} free` : '',
        kind: free === 0 ? 'warn' : '',
      },
      ...(raft
        ? [
            {
              label: 'Leader',
              value: raft.leader ? `coordinator ${raft.leader.id}` : 'none',
              note: raft.leader ? raft.leader.address : 'no majority',
              kind: raft.leader ? '' : 'bad',
            },
            { label: 'Term', value: exact(raft.term), note: 'grows with each election' },
            { label: 'Agreed entries', value: exact(raft.committed), note: 'of the log' },
          ]
        : []),
    ]);
  }

  workerList() {
    const { data, error } = this.workers;
    if (!data) return unansweredPanel('Workers', error, 'The workers', 4);
    return panel(
      'Workers',
      {},
      table({
        label: 'Workers',
        rows: data.workers,
        key: (row) => row.worker,
        order: this.order,
        onOrder: (order) => {
          this.order = order;
          this.app.redraw();
        },
        cards: true,
        empty: 'No worker has registered. Start one with `mainstem worker`.',
        columns: [
          {
            id: 'name',
            label: 'Worker',
            width: 10,
            place: 'lead',
            sort: (row) => row.name,
            cell: (row) => h('span', { title: row.worker }, h('b', null, row.name)),
          },
          {
            id: 'address',
            label: 'Address',
            width: 13,
            place: 'wide',
            sort: (row) => row.address,
            cell: (row) => row.address,
          },
          {
            id: 'state',
            label: 'State',
            width: 8,
            place: 'side',
            cell: (row) => (row.draining ? chip('draining', 'warn') : chip('ready', 'ok')),
          },
          {
            id: 'slots',
            label: 'Slots',
            width: 6,
            number: true,
            sort: (row) => row.used / row.slots,
            cell: (row) => `${row.used} of ${row.slots}`,
          },
          {
            id: 'use',
            label: 'Use',
            width: 8,
            place: 'drop',
            cell: (row) =>
              h(
                'span',
                { class: 'load', role: 'img', 'aria-label': `${row.used} of ${row.slots} slots in use` },
                h('i', { class: 'busy', css: { width: `${row.slots ? Math.min(100, (row.used / row.slots) * 100) : 0}%` } }),
              ),
          },
          { id: 'jobs', label: 'Jobs', least: 12, place: 'whole', cell: (row) => jobsOf(row.jobs) },
          {
            id: 'drain',
            label: '',
            width: 6.5,
            place: 'whole',
            cell: (row) =>
              this.app.oneProcess
                ? null
                : h(
                    'button',
                    {
                      type: 'button',
                      class: 'plain',
                      disabled: row.draining || !this.app.may('operator'),
                      'aria-label': `Drain ${row.name}`,
                      on: { click: () => this.drain(row) },
                    },
                    'Drain…',
                  ),
          },
        ],
      }),
    );
  }

  drain(row) {
    this.app.open(
      actionDialog(this.app, {
        title: `Drain ${row.name}?`,
        text: 'It takes nothing new, and what it runs moves to other workers as soon as there is room. Then it can be stopped without a failure.',
        button: 'Drain it',
        act: async () => {
          await post(path('workers', row.name, 'drain'));
          this.workers.now();
        },
        done: () => `${row.name} is being drained.`,
      }),
    );
  }

  coordinatorList() {
    const { data, error } = this.coordinators;
    if (!data) return unansweredPanel('Coordinators', error, 'The coordinators', 3);
    const kinds = { leader: 'ok', member: 'idle', joining: 'accent' };
    return panel(
      'Coordinators',
      {},
      table({
        label: 'Coordinators',
        rows: data.members,
        key: (row) => row.id,
        cards: true,
        empty: 'None.',
        columns: [
          { id: 'id', label: 'Coordinator', width: 10, place: 'lead', cell: (row) => h('b', null, `coordinator ${row.id}`) },
          { id: 'address', label: 'Address', width: 13, place: 'wide', cell: (row) => row.address },
          { id: 'role', label: 'Role', least: 8, place: 'side', cell: (row) => chip(row.role, kinds[row.role] || 'idle') },
        ],
      }),
    );
  }

  settings() {
    const { data, error } = this.configuration;
    if (!data) return error && error.status !== 403 ? failed(error, 'The configuration') : null;
    return panel(
      `Configuration of ${data.node}`,
      { end: h('span', { class: 'muted small' }, plural(data.settings.length, 'setting')) },
      table({
        label: 'Configuration',
        rows: data.settings,
        key: (row) => row.name,
        empty: 'Nothing is set.',
        columns: [
          { id: 'name', label: 'Name', width: 20, cell: (row) => h('code', null, row.name) },
          {
            id: 'value',
            label: 'Value',
            least: 12,
            wrap: true,
            cell: (row) => h('code', null, row.value === null ? NONE : String(row.value)),
          },
        ],
      }),
    );
  }

  close() {
    for (const poll of this.polls) poll.close();
  }
}

function jobsOf(jobs) {
  const shown = jobs.slice(0, JOBS_SHOWN);
  return h(
    'span',
    { title: jobs.join(', ') },
    shown.map((job, index) => [index ? ', ' : '', h('a', { key: job, href: href(['jobs', job]) }, job)]),
    jobs.length > shown.length ? ` and ${jobs.length - shown.length} more` : '',
    jobs.length ? '' : NONE,
  );
}
