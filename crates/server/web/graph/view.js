// Draws the dataflow of a job: cards in HTML on top of streams in SVG. One tab stop; arrow keys go from card to card.

import { h } from '../lib/dom.js';
import { icon } from '../ui/icons.js';
import { card, plannedCard } from './card.js';
import { layout, curve } from './layout.js';
import { tasksOf, shapeOf, pressure } from './tasks.js';

const WIDTH = 258;
const PHONE_WIDTH = 214;
const ROW = 24;
const FOOT = 52;
const PLANNED_FOOT = 38;
const EDGE = 10;
const SCALES = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.15, 1.3];
// Cards get no smaller than this by themselves: then the graph scrolls.
const SCALE_MIN = 0.8;

const phone = matchMedia('(max-width: 700px)');

export class GraphView {
  // `planned`: the job does not run, so there are no figures to be shown.
  constructor(changed, planned = false) {
    this.changed = changed;
    this.planned = planned;
    this.foot = planned ? PLANNED_FOOT : FOOT;
    this.picked = null;
    this.focused = null;
    this.scale = null;
    this.width = 0;
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width !== this.width) {
        this.width = width;
        this.changed();
      }
    });
  }

  // Places are found anew only when the dataflow itself is another one.
  place(dataflow) {
    const down = phone.matches;
    const shape = `${down} ${shapeOf(dataflow)}`;
    if (shape === this.shape) return;
    this.shape = shape;
    this.down = down;
    this.wide = down ? PHONE_WIDTH : WIDTH;
    const sizes = new Map(
      dataflow.tasks.map((task) => [task.id, { width: this.wide, height: task.operators.length * ROW + this.foot }]),
    );
    this.places = layout(
      dataflow.tasks.map((task) => task.id),
      dataflow.edges,
      { sizes, gap: down ? 16 : 26, layerGap: down ? 44 : 86, down },
    );
  }

  draw(graph, now) {
    const dataflow = tasksOf(graph);
    this.place(dataflow);
    this.tasks = dataflow.tasks;
    if (!this.tasks.some((task) => task.id === this.focused)) this.focused = this.tasks.length ? this.tasks[0].id : null;
    const { width, height } = this.places;
    const fit = this.width ? Math.min(1, Math.max(SCALE_MIN, (this.width - 2 * EDGE) / (width || 1))) : 1;
    const scale = this.scale || fit;
    this.scaled = scale;
    const slowest = Math.min(...dataflow.tasks.map((task) => task.watermark ?? Infinity));
    return h(
      'div',
      { class: 'graph' },
      h(
        'div',
        { class: 'canvas', role: 'region', 'aria-label': 'Dataflow', ref: (el) => this.observer.observe(el) },
        h(
          'div',
          { class: 'extent', css: { width: `${(width + 2 * EDGE) * scale}px`, height: `${(height + 2 * EDGE) * scale}px` } },
          h(
            'div',
            {
              class: 'stage',
              css: { transform: `scale(${scale})`, width: `${width + 2 * EDGE}px`, height: `${height + 2 * EDGE}px` },
            },
            this.streams(dataflow),
            h(
              'ul',
              { class: 'cards-of-graph', 'aria-label': 'Tasks' },
              dataflow.tasks.map((task) => this.card(task, now, slowest)),
            ),
          ),
        ),
      ),
    );
  }

  // The buttons for the size, for the head of the panel that the graph is in.
  controls() {
    return h(
      'div',
      { class: 'zoom', role: 'group', 'aria-label': 'Size of the graph' },
      h(
        'button',
        {
          type: 'button',
          class: 'plain icon',
          title: 'Smaller',
          'aria-label': 'Smaller',
          on: { click: () => this.zoom(-1) },
        },
        icon('less'),
      ),
      h(
        'button',
        { type: 'button', class: 'plain icon', title: 'Larger', 'aria-label': 'Larger', on: { click: () => this.zoom(1) } },
        icon('more'),
      ),
      h(
        'button',
        {
          type: 'button',
          class: 'plain icon',
          title: 'Fit the page',
          'aria-label': 'Fit the page',
          on: {
            click: () => {
              this.scale = null;
              this.changed();
            },
          },
        },
        icon('fit'),
      ),
    );
  }

  zoom(step) {
    const nearest = (best, value, index) =>
      Math.abs(value - this.scaled) < Math.abs(SCALES[best] - this.scaled) ? index : best;
    const at = SCALES.reduce(nearest, 0);
    this.scale = SCALES[Math.min(SCALES.length - 1, Math.max(0, at + step))];
    this.changed();
  }

  streams(dataflow) {
    const tasks = new Map(dataflow.tasks.map((task) => [task.id, task]));
    return h(
      'svg',
      {
        class: 'streams',
        width: this.places.width + 2 * EDGE,
        height: this.places.height + 2 * EDGE,
        viewBox: `${-EDGE} ${-EDGE} ${this.places.width + 2 * EDGE} ${this.places.height + 2 * EDGE}`,
        'aria-hidden': 'true',
      },
      h(
        'defs',
        null,
        h(
          'marker',
          {
            id: 'arrow',
            viewBox: '0 0 8 8',
            refX: 7,
            refY: 4,
            markerWidth: 7,
            markerHeight: 7,
            markerUnits: 'userSpaceOnUse',
            orient: 'auto',
          },
          h('path', { class: 'arrowhead', d: 'M0 .5 7.5 4 0 7.5z' }),
        ),
      ),
      this.places.edges.map((edge, index) => {
        const { stream } = dataflow.edges[index];
        const source = tasks.get(edge.from);
        const target = tasks.get(edge.to);
        const points = this.attached(edge, source, target, stream);
        const marked = this.picked !== null && (edge.from === this.picked || edge.to === this.picked);
        const [a, b] = points.slice(0, 2);
        return h(
          'g',
          {
            key: `${stream.from} ${stream.to} ${stream.port} ${index}`,
            class: `stream ${pressure(source.blocked)}${marked ? ' marked' : ''}`,
          },
          h('path', { d: curve(points, this.down), 'marker-end': 'url(#arrow)' }),
          h(
            'text',
            { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 - (this.down ? 0 : 6), 'text-anchor': 'middle' },
            stream.port > 0 ? `${stream.exchange}, side ${stream.port}` : stream.exchange,
          ),
        );
      }),
    );
  }

  // A stream leaves and enters at the row of its operator where layers go from left to right.
  attached(edge, source, target, stream) {
    const points = edge.points.map((point) => ({ ...point }));
    if (this.down) return points;
    const row = (task, id) => task.operators.findIndex((operator) => operator.id === id) * ROW + ROW / 2 + 1;
    points[0].y = this.places.nodes.get(edge.from).y + row(source, stream.from);
    points.at(-1).y = this.places.nodes.get(edge.to).y + row(target, stream.to);
    return points;
  }

  card(task, now, slowest) {
    const place = this.places.nodes.get(task.id);
    const item = {
      transform: `translate(${place.x + EDGE}px, ${place.y + EDGE}px)`,
      width: `${this.wide}px`,
      height: `${task.operators.length * ROW + this.foot}px`,
    };
    const button = {
      id: `task-${task.id}`,
      'aria-pressed': String(this.picked === task.id),
      tabindex: task.id === this.focused ? 0 : -1,
      on: {
        click: () => this.pick(task.id),
        focus: () => this.focus(task.id),
        keydown: (event) => this.move(event, task.id),
      },
    };
    return h('li', { key: task.id, css: item }, this.planned ? plannedCard(task, button) : card(task, button, now, slowest));
  }

  pick(id) {
    this.picked = this.picked === id ? null : id;
    this.changed();
  }

  focus(id) {
    if (this.focused === id) return;
    this.focused = id;
    this.changed();
  }

  // The nearest card in the direction of the key.
  move(event, id) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const from = this.places.nodes.get(id);
    let best = null;
    for (const [other, to] of this.places.nodes) {
      const along = (to.x - from.x) * step[0] + (to.y - from.y) * step[1];
      const aside = Math.abs((to.x - from.x) * step[1]) + Math.abs((to.y - from.y) * step[0]);
      const far = along + aside * 2;
      if (other !== id && along > 1 && (!best || far < best.far)) best = { other, far };
    }
    if (!best) return;
    this.focused = best.other;
    document.getElementById(`task-${best.other}`).focus();
    this.changed();
  }

  close() {
    this.observer.disconnect();
  }
}
