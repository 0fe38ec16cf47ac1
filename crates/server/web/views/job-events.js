// What happens to a job, as the server tells it at once.

import { h } from '../lib/dom.js';
import { bytes, clock, duration, plural } from '../lib/format.js';
import { chip, kindOfState, panel } from '../ui/parts.js';

const KINDS = { checkpoint: 'ok', published: 'ok', failure: 'bad', restart: 'warn', end: 'idle', gone: 'idle' };
const ROUTINE = ['checkpoint', 'published'];

export class EventsTab {
  constructor(view) {
    this.view = view;
    this.routine = true;
    this.polls = [];
  }

  draw() {
    const events = this.view.events.filter((event) => this.routine || !ROUTINE.includes(event.event));
    const toggle = h(
      'label',
      { class: 'check' },
      h('input', {
        type: 'checkbox',
        checked: this.routine,
        on: {
          change: (event) => {
            this.routine = event.target.checked;
            this.view.app.redraw();
          },
        },
      }),
      'Checkpoints',
    );
    return panel(
      'Events',
      { end: [h('span', { class: 'muted small' }, plural(events.length, 'event')), toggle] },
      events.length === 0
        ? h('p', { class: 'empty' }, 'Nothing has happened since this page was opened.')
        : h(
            'ol',
            { class: 'events' },
            events.map((event) =>
              h(
                'li',
                { key: `${event.at_ms} ${event.seq}` },
                h('time', { datetime: new Date(event.at_ms).toISOString() }, clock(event.at_ms)),
                chip(event.state || event.event, event.state ? kindOfState(event.state) : KINDS[event.event] || 'idle'),
                h('span', { class: 'grow' }, told(event)),
              ),
            ),
          ),
    );
  }

  close() {}
}

function told(event) {
  const parts = [];
  if (event.epoch !== null && event.epoch !== undefined) parts.push(`epoch ${event.epoch}`);
  if (event.event === 'state' || event.event === 'restart') parts.push(`attempt ${event.generation}`);
  if (event.duration_ms !== null && event.duration_ms !== undefined) parts.push(`after ${duration(event.duration_ms)}`);
  if (event.bytes !== null && event.bytes !== undefined) parts.push(bytes(event.bytes));
  if (event.message) parts.push(event.message);
  return parts.join(' · ');
}
