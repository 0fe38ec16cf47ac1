package mainstem.nexmark;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.SourceOutput;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.core.io.InputStatus;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.columnar.ColumnarRowData;
import org.apache.flink.table.data.columnar.vector.VectorizedColumnBatch;

/** Gives the rows of its splits; of several splits, the one that is furthest behind goes first. */
final class NexmarkReader implements SourceReader<RowData, NexmarkSplit> {
    /** Rows given at a time: the mailbox is looked at between, so barriers do not wait for long. */
    private static final int ROWS_A_POLL = 32;
    /** A paced reader waits so long where nothing is due. */
    private static final long PACE_STEP_MS = 10;

    private final Parameters parameters;
    private final BatchMaker maker;
    private final List<NexmarkSplit> splits = new ArrayList<>();
    private CompletableFuture<Void> available = new CompletableFuture<>();
    private boolean complete;
    /** When pacing began, and with which number; -1: not yet. */
    private long pacedSinceNanos;
    private long pacedFrom = -1;

    private VectorizedColumnBatch batch;
    /** The split of the batch. */
    private NexmarkSplit current;
    private SourceOutput<RowData> output;
    /** Next row of the batch; the batch has been given when it is the number of its rows. */
    private int row;

    NexmarkReader(Parameters parameters, Column[] columns) {
        this.parameters = parameters;
        maker = new BatchMaker(parameters, columns);
    }

    @Override
    public InputStatus pollNext(ReaderOutput<RowData> outputs) {
        if (row == maker.rows && !advance(outputs)) {
            return complete && splits.isEmpty() ? InputStatus.END_OF_INPUT : InputStatus.NOTHING_AVAILABLE;
        }
        int end = Math.min(row + ROWS_A_POLL, maker.rows);
        while (row < end) {
            output.collect(new ColumnarRowData(batch, row++));
        }
        return InputStatus.MORE_AVAILABLE;
    }

    /** Makes the next batch; false: there is none, or none yet. */
    private boolean advance(ReaderOutput<RowData> outputs) {
        while (!splits.isEmpty()) {
            current = splits.stream().min(Comparator.comparingLong(split -> split.next)).get();
            if (current.next < parameters.end) {
                long limit = Math.min(parameters.end, due(current.next));
                if (current.next >= limit) {
                    // The others are further still.
                    available = CompletableFuture.runAsync(
                            () -> {}, CompletableFuture.delayedExecutor(PACE_STEP_MS, TimeUnit.MILLISECONDS));
                    return false;
                }
                output = outputs.createOutputForSplit(current.splitId());
                batch = maker.next(current, limit);
                row = 0;
                return true;
            }
            outputs.releaseOutputForSplit(current.splitId());
            splits.remove(current);
        }
        return false;
    }

    /** One past the last number that may be given now. */
    private long due(long next) {
        if (!parameters.isPaced) {
            return Long.MAX_VALUE;
        }
        long now = System.nanoTime();
        if (pacedFrom < 0) {
            pacedFrom = next;
            pacedSinceNanos = now;
        }
        return pacedFrom + (now - pacedSinceNanos) / 1_000 * parameters.eventsPerSecond / 1_000_000 + 1;
    }

    @Override
    public List<NexmarkSplit> snapshotState(long checkpoint) {
        List<NexmarkSplit> state = new ArrayList<>();
        for (NexmarkSplit split : splits) {
            boolean isInBatch = split == current && row < maker.rows;
            state.add(split.at(isInBatch ? maker.numbers[row] : split.next));
        }
        return state;
    }

    @Override
    public void addSplits(List<NexmarkSplit> more) {
        splits.addAll(more);
        available.complete(null);
    }

    @Override
    public void notifyNoMoreSplits() {
        complete = true;
        available.complete(null);
    }

    @Override
    public CompletableFuture<Void> isAvailable() {
        return available;
    }

    @Override
    public void start() {}

    @Override
    public void close() {}
}
