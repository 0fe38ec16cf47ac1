// From operators to what is drawn: one card for each task, because the operators of a task run as one, and share its load.

// The tasks of a graph with their operators in order, and the streams between tasks.
export function tasksOf(graph) {
  const tasks = new Map();
  for (const operator of graph.operators) {
    const id = operator.task ?? operator.id;
    if (!tasks.has(id)) tasks.set(id, { id, operators: [] });
    tasks.get(id).operators.push(operator);
  }
  const taskOf = new Map(graph.operators.map((operator) => [operator.id, operator.task ?? operator.id]));
  const edges = graph.edges
    .filter((edge) => taskOf.has(edge.from) && taskOf.has(edge.to) && taskOf.get(edge.from) !== taskOf.get(edge.to))
    .map((edge) => ({ from: taskOf.get(edge.from), to: taskOf.get(edge.to), stream: edge }));
  return { tasks: [...tasks.values()].map(summed), edges };
}

function summed(task) {
  const [first] = task.operators;
  const known = task.operators.filter((operator) => operator.watermark_ms !== null && operator.watermark_ms !== undefined);
  return {
    ...task,
    name: task.operators.map((operator) => operator.name).join(' → '),
    parallelism: first.parallelism,
    busy: first.busy,
    blocked: first.backpressured,
    idle: first.idle,
    // A task's watermark is that of its last operator.
    watermark: known.length ? known.at(-1).watermark_ms : null,
    atEnd: task.operators.some((operator) => operator.watermark_at_end),
  };
}

// What makes a drawing another one: figures do not.
export const shapeOf = ({ tasks, edges }) =>
  JSON.stringify([
    tasks.map((task) => [task.id, task.operators.map((operator) => operator.id)]),
    edges.map((edge) => [edge.from, edge.to]),
  ]);

// How much backpressure there is, as a word; a class of the same name gives the colour.
export function pressure(share) {
  if (share === null || share === undefined) return 'unknown';
  return share >= 0.5 ? 'high' : share >= 0.1 ? 'some' : 'none';
}

// The figure that says most about an operator: what comes out of it, or what goes into a sink.
export const flowOf = (operator) => (operator.kind === 'sink' ? operator.rows_in_per_second : operator.rows_out_per_second);
