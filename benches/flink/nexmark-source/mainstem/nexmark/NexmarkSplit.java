package mainstem.nexmark;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.connector.source.SourceSplit;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/**
 * Every {@code splits}-th block of a thousand numbers, beginning with block {@code index}; as in Mainstem, so that all
 * splits advance together in event time.
 */
final class NexmarkSplit implements SourceSplit {
    private static final long BLOCK = 1000;

    final int index;
    private final int splits;
    /** The next number. */
    long next;

    NexmarkSplit(int index, int splits, long number) {
        this.index = index;
        this.splits = splits;
        advanceTo(number);
    }

    /** A split of its own that goes on at {@code number}. */
    NexmarkSplit at(long number) {
        return new NexmarkSplit(index, splits, number);
    }

    /** Goes on at a number, or at the next number of this split after it. */
    void advanceTo(long number) {
        long block = number / BLOCK;
        long turn = block % splits;
        next = turn == index ? number : (block + (index + splits - turn) % splits) * BLOCK;
    }

    long blockEnd() {
        return (next / BLOCK + 1) * BLOCK;
    }

    @Override
    public String splitId() {
        return "part-" + index + "-of-" + splits;
    }

    /** Writes splits, one alone and those that are not yet assigned. */
    static final class Serializer implements SimpleVersionedSerializer<NexmarkSplit> {
        @Override
        public int getVersion() {
            return 1;
        }

        @Override
        public byte[] serialize(NexmarkSplit split) throws IOException {
            return write(List.of(split));
        }

        @Override
        public NexmarkSplit deserialize(int version, byte[] bytes) throws IOException {
            return read(bytes).get(0);
        }
    }

    static final class ListSerializer implements SimpleVersionedSerializer<List<NexmarkSplit>> {
        @Override
        public int getVersion() {
            return 1;
        }

        @Override
        public byte[] serialize(List<NexmarkSplit> splits) throws IOException {
            return write(splits);
        }

        @Override
        public List<NexmarkSplit> deserialize(int version, byte[] bytes) throws IOException {
            return read(bytes);
        }
    }

    private static byte[] write(List<NexmarkSplit> splits) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        DataOutputStream out = new DataOutputStream(bytes);
        out.writeInt(splits.size());
        for (NexmarkSplit split : splits) {
            out.writeInt(split.index);
            out.writeInt(split.splits);
            out.writeLong(split.next);
        }
        return bytes.toByteArray();
    }

    private static List<NexmarkSplit> read(byte[] bytes) throws IOException {
        DataInputStream in = new DataInputStream(new ByteArrayInputStream(bytes));
        List<NexmarkSplit> splits = new ArrayList<>();
        for (int left = in.readInt(); left > 0; left--) {
            splits.add(new NexmarkSplit(in.readInt(), in.readInt(), in.readLong()));
        }
        return splits;
    }
}
