// Places the operators of a dataflow in layers, so that streams run one way and cross little.
//
// The steps are those of Sugiyama et al. (1981): layers by the longest path from a source, an invisible node in each layer that an
// edge passes, an order within layers by medians, swept until crossings do not get fewer, and places by which an edge is as
// straight as its neighbours allow. The result depends on the graph alone, so a drawing stays as it is while figures change.

const SWEEPS = 12;

// `nodes`: ids, which are numbers. `edges`: `{ from, to }`. `sizes`: width and height of each node, with `gap` between neighbours and
// `layerGap` between layers. `down`: layers go from top to bottom instead of left to right. Gives the places of nodes (left top
// corner), the points of each edge, and the extent of it all.
export function layout(nodes, edges, { sizes, gap, layerGap, down = false }) {
  const graph = layered(nodes, edges);
  order(graph);
  const along = (id) => (sizes.has(id) ? (down ? sizes.get(id).height : sizes.get(id).width) : 0);
  const across = (id) => (sizes.has(id) ? (down ? sizes.get(id).width : sizes.get(id).height) : 0);
  const places = place(graph, across, gap);
  const at = new Map();
  let start = 0;
  for (const ids of graph.layers) {
    const deep = Math.max(...ids.map(along));
    for (const id of ids) at.set(id, { start, deep, across: places.get(id) });
    start += deep + layerGap;
  }
  const corner = (point) => (down ? { x: point.across, y: point.along } : { x: point.along, y: point.across });
  const result = { nodes: new Map(), edges: [], width: 0, height: 0 };
  for (const id of nodes) {
    const point = corner({ along: at.get(id).start, across: at.get(id).across });
    result.nodes.set(id, point);
    result.width = Math.max(result.width, point.x + sizes.get(id).width);
    result.height = Math.max(result.height, point.y + sizes.get(id).height);
  }
  for (const [index, edge] of edges.entries()) {
    const points = graph.paths[index].flatMap((id, step, path) => {
      const { start: near, deep, across: side } = at.get(id);
      const middle = side + across(id) / 2;
      const begin = { along: near, across: middle };
      // An invisible node is as deep as its layer, a card has its own end.
      const end = { along: near + (sizes.has(id) ? along(id) : deep), across: middle };
      if (step === 0) return [end];
      return step === path.length - 1 ? [begin] : [begin, end];
    });
    result.edges.push({ ...edge, points: points.map(corner) });
  }
  return result;
}

// Layers with invisible nodes; `paths[i]` are the ids that edge i goes through.
function layered(nodes, edges) {
  const layer = layersOf(nodes, edges);
  const layers = [];
  const put = (id, at) => {
    while (layers.length <= at) layers.push([]);
    layers[at].push(id);
  };
  for (const id of nodes) put(id, layer.get(id));
  const links = [];
  const paths = edges.map(({ from, to }, index) => {
    const path = [from];
    for (let at = layer.get(from) + 1; at < layer.get(to); at += 1) {
      const id = `${index}:${at}`;
      put(id, at);
      path.push(id);
    }
    path.push(to);
    for (let step = 1; step < path.length; step += 1) links.push([path[step - 1], path[step]]);
    return path;
  });
  const above = new Map();
  const below = new Map();
  const add = (map, key, value) => map.set(key, [...(map.get(key) || []), value]);
  for (const [from, to] of links) {
    add(below, from, to);
    add(above, to, from);
  }
  return { layers, paths, above: (id) => above.get(id) || [], below: (id) => below.get(id) || [] };
}

// The longest path from a source; then sources move right next to what reads them.
function layersOf(nodes, edges) {
  const into = new Map(nodes.map((id) => [id, []]));
  const outOf = new Map(nodes.map((id) => [id, []]));
  for (const { from, to } of edges) {
    into.get(to).push(from);
    outOf.get(from).push(to);
  }
  const layer = new Map();
  const depth = (id, path) => {
    if (layer.has(id)) return layer.get(id);
    if (path.has(id)) return 0;
    path.add(id);
    const at = into.get(id).reduce((most, from) => Math.max(most, depth(from, path) + 1), 0);
    path.delete(id);
    layer.set(id, at);
    return at;
  };
  for (const id of nodes) depth(id, new Set());
  for (const id of nodes) {
    if (into.get(id).length === 0 && outOf.get(id).length > 0) {
      layer.set(id, Math.max(0, Math.min(...outOf.get(id).map((to) => layer.get(to))) - 1));
    }
  }
  return layer;
}

function order(graph) {
  let best = graph.layers.map((layer) => [...layer]);
  let least = crossings(graph, best);
  let now = best.map((layer) => [...layer]);
  for (let sweep = 0; sweep < SWEEPS && least > 0; sweep += 1) {
    const forward = sweep % 2 === 0;
    const neighbours = forward ? graph.above : graph.below;
    const indices = now.map((_, index) => index);
    if (!forward) indices.reverse();
    for (const index of indices) {
      const beside = now[index + (forward ? -1 : 1)];
      if (beside) now[index] = byMedian(now[index], beside, neighbours);
    }
    const number = crossings(graph, now);
    if (number < least) {
      least = number;
      best = now.map((layer) => [...layer]);
    }
  }
  graph.layers = best;
}

function byMedian(layer, beside, neighbours) {
  const position = new Map(beside.map((id, index) => [id, index]));
  const weight = new Map(
    layer.map((id, index) => {
      const at = neighbours(id)
        .map((other) => position.get(other))
        .filter((p) => p !== undefined);
      return [id, at.length ? at.reduce((sum, p) => sum + p, 0) / at.length : index];
    }),
  );
  return layer
    .map((id, index) => [id, index])
    .sort(([a, i], [b, j]) => weight.get(a) - weight.get(b) || i - j)
    .map(([id]) => id);
}

function crossings(graph, layers) {
  let number = 0;
  for (let index = 1; index < layers.length; index += 1) {
    const position = new Map(layers[index].map((id, at) => [id, at]));
    const ends = layers[index - 1].flatMap((id) =>
      graph
        .below(id)
        .map((to) => position.get(to))
        .sort((a, b) => a - b),
    );
    for (let i = 0; i < ends.length; i += 1) for (let j = i + 1; j < ends.length; j += 1) if (ends[i] > ends[j]) number += 1;
  }
  return number;
}

// Where each node lies across its layer: as near to the middle of its neighbours as the order allows.
function place(graph, size, gap) {
  const at = new Map();
  for (const layer of graph.layers) {
    let next = 0;
    for (const id of layer) {
      at.set(id, next);
      next += size(id) + gap;
    }
  }
  const middle = (id) => at.get(id) + size(id) / 2;
  const mean = (ids) => ids.reduce((sum, id) => sum + middle(id), 0) / ids.length;
  for (let sweep = 0; sweep < SWEEPS * 2; sweep += 1) {
    const forward = sweep % 2 === 0;
    const layers = forward ? graph.layers : [...graph.layers].reverse();
    for (const layer of layers) {
      const wish = layer.map((id) => {
        const near = forward ? graph.above(id) : graph.below(id);
        const beside = near.length ? near : forward ? graph.below(id) : graph.above(id);
        return (beside.length ? mean(beside) : middle(id)) - size(id) / 2;
      });
      settle(layer, wish, size, gap).forEach((value, index) => at.set(layer[index], value));
    }
  }
  const least = Math.min(...at.values());
  return new Map([...at].map(([id, value]) => [id, value - least]));
}

// Least squares under an order (pool adjacent violators): neighbours that would overlap are moved together.
function settle(layer, wish, size, gap) {
  let offset = 0;
  const blocks = [];
  layer.forEach((id, index) => {
    blocks.push({ sum: wish[index] - offset, number: 1, offsets: [offset] });
    offset += size(id) + gap;
    while (blocks.length > 1 && mean(blocks.at(-2)) > mean(blocks.at(-1))) {
      const last = blocks.pop();
      const before = blocks.at(-1);
      before.sum += last.sum;
      before.number += last.number;
      before.offsets.push(...last.offsets);
    }
  });
  return blocks.flatMap((block) => block.offsets.map((by) => mean(block) + by));

  function mean(block) {
    return block.sum / block.number;
  }
}

// The path of an edge as SVG writes it: smooth between the points, with the streams' direction at both ends.
export function curve(points, down) {
  let path = `M${round(points[0].x)} ${round(points[0].y)}`;
  for (let index = 1; index < points.length; index += 1) {
    const a = points[index - 1];
    const b = points[index];
    if (down) {
      const half = (b.y - a.y) / 2;
      path += ` C${round(a.x)} ${round(a.y + half)} ${round(b.x)} ${round(b.y - half)} ${round(b.x)} ${round(b.y)}`;
    } else {
      const half = (b.x - a.x) / 2;
      path += ` C${round(a.x + half)} ${round(a.y)} ${round(b.x - half)} ${round(b.y)} ${round(b.x)} ${round(b.y)}`;
    }
  }
  return path;
}

const round = (value) => Math.round(value * 10) / 10;
