// The server's clock, as an answer told it. Ages are measured against it, so a wrong clock of the browser changes nothing.

// Notes when an answer came.
export function received(answer) {
  answer.received = performance.now();
  return answer;
}

// The server's time now, going on from the answer: figures that are not renewed grow old visibly.
export const clockOf = (answer) => answer.now_ms + (performance.now() - answer.received);
