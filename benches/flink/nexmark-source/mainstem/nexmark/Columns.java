package mainstem.nexmark;

import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.columnar.ColumnarRowData;
import org.apache.flink.table.data.columnar.vector.BytesColumnVector;
import org.apache.flink.table.data.columnar.vector.ColumnVector;
import org.apache.flink.table.data.columnar.vector.IntColumnVector;
import org.apache.flink.table.data.columnar.vector.LongColumnVector;
import org.apache.flink.table.data.columnar.vector.RowColumnVector;
import org.apache.flink.table.data.columnar.vector.TimestampColumnVector;
import org.apache.flink.table.data.columnar.vector.VectorizedColumnBatch;

/** Columns of one batch. They never change once they are made, so an operator may keep their rows. */
final class Columns {
    private Columns() {}

    /** A column that is null where the event is of another kind than the column's. */
    private abstract static class Nullable implements ColumnVector {
        private final byte[] kinds;
        private final int kind;

        /** Without {@code kinds} there is no null. */
        Nullable(byte[] kinds, Kind kind) {
            this.kinds = kinds;
            this.kind = kind.ordinal();
        }

        @Override
        public final boolean isNullAt(int row) {
            return kinds != null && kinds[row] != kind;
        }
    }

    static final class Numbers extends Nullable implements LongColumnVector {
        private final long[] values;

        Numbers(byte[] kinds, Kind kind, long[] values) {
            super(kinds, kind);
            this.values = values;
        }

        @Override
        public long getLong(int row) {
            return values[row];
        }
    }

    static final class Times extends Nullable implements TimestampColumnVector {
        private final long[] values;

        Times(byte[] kinds, Kind kind, long[] values) {
            super(kinds, kind);
            this.values = values;
        }

        @Override
        public TimestampData getTimestamp(int row, int precision) {
            return TimestampData.fromEpochMillis(values[row]);
        }
    }

    static final class Text extends Nullable implements BytesColumnVector {
        private final TextBuffer texts;

        Text(byte[] kinds, Kind kind, TextBuffer texts) {
            super(kinds, kind);
            this.texts = texts;
        }

        @Override
        public Bytes getBytes(int row) {
            int start = row == 0 ? 0 : texts.ends[row - 1];
            return new Bytes(texts.bytes, start, texts.ends[row] - start);
        }
    }

    static final class Rows extends Nullable implements RowColumnVector {
        private final VectorizedColumnBatch fields;

        Rows(byte[] kinds, Kind kind, VectorizedColumnBatch fields) {
            super(kinds, kind);
            this.fields = fields;
        }

        @Override
        public ColumnarRowData getRow(int row) {
            return new ColumnarRowData(fields, row);
        }
    }

    static final class Kinds implements IntColumnVector {
        private final byte[] kinds;

        Kinds(byte[] kinds) {
            this.kinds = kinds;
        }

        @Override
        public boolean isNullAt(int row) {
            return false;
        }

        @Override
        public int getInt(int row) {
            return kinds[row];
        }
    }
}
