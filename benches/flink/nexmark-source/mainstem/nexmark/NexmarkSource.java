package mainstem.nexmark;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.table.data.RowData;

/** The Nexmark events as a source of Flink: replayable, with one split for each subtask. */
final class NexmarkSource implements Source<RowData, NexmarkSplit, List<NexmarkSplit>> {
    private static final long serialVersionUID = 1L;

    private final Parameters parameters;
    private final Column[] columns;

    NexmarkSource(Parameters parameters, Column[] columns) {
        this.parameters = parameters;
        this.columns = columns;
    }

    @Override
    public Boundedness getBoundedness() {
        return Boundedness.BOUNDED;
    }

    @Override
    public SourceReader<RowData, NexmarkSplit> createReader(SourceReaderContext context) {
        return new NexmarkReader(parameters, columns);
    }

    @Override
    public SplitEnumerator<NexmarkSplit, List<NexmarkSplit>> createEnumerator(
            SplitEnumeratorContext<NexmarkSplit> context) {
        List<NexmarkSplit> splits = new ArrayList<>();
        for (int i = 0; i < context.currentParallelism(); i++) {
            splits.add(new NexmarkSplit(i, context.currentParallelism(), 0));
        }
        return new Enumerator(context, splits);
    }

    @Override
    public SplitEnumerator<NexmarkSplit, List<NexmarkSplit>> restoreEnumerator(
            SplitEnumeratorContext<NexmarkSplit> context, List<NexmarkSplit> unassigned) {
        return new Enumerator(context, unassigned);
    }

    @Override
    public SimpleVersionedSerializer<NexmarkSplit> getSplitSerializer() {
        return new NexmarkSplit.Serializer();
    }

    @Override
    public SimpleVersionedSerializer<List<NexmarkSplit>> getEnumeratorCheckpointSerializer() {
        return new NexmarkSplit.ListSerializer();
    }

    /** Gives each reader its splits as soon as it is there. */
    private static final class Enumerator implements SplitEnumerator<NexmarkSplit, List<NexmarkSplit>> {
        private final SplitEnumeratorContext<NexmarkSplit> context;
        private final List<NexmarkSplit> unassigned;

        Enumerator(SplitEnumeratorContext<NexmarkSplit> context, List<NexmarkSplit> unassigned) {
            this.context = context;
            this.unassigned = new ArrayList<>(unassigned);
        }

        @Override
        public void addReader(int subtask) {
            List<NexmarkSplit> mine = new ArrayList<>(unassigned);
            mine.removeIf(split -> split.index % context.currentParallelism() != subtask);
            unassigned.removeAll(mine);
            mine.forEach(split -> context.assignSplit(split, subtask));
            context.signalNoMoreSplits(subtask);
        }

        @Override
        public void addSplitsBack(List<NexmarkSplit> splits, int subtask) {
            unassigned.addAll(splits);
        }

        @Override
        public List<NexmarkSplit> snapshotState(long checkpoint) {
            return new ArrayList<>(unassigned);
        }

        @Override
        public void start() {}

        @Override
        public void handleSplitRequest(int subtask, String host) {}

        @Override
        public void close() {}
    }
}
