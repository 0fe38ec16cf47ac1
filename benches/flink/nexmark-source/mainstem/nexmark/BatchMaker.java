package mainstem.nexmark;

import org.apache.flink.table.data.columnar.vector.ColumnVector;
import org.apache.flink.table.data.columnar.vector.VectorizedColumnBatch;

/** Makes batches of events, column by column, and only the columns that are asked for. */
final class BatchMaker {
    /** So many that loops are long, and so few that a batch stays in the first caches. */
    private static final int ROWS_MAX = 512;
    /** Numbers that are looked at for one batch where few of them are of the kind that is wanted. */
    private static final int NUMBERS_MAX = 1 << 14;

    private final Parameters parameters;
    private final EventStream stream;
    private final Texts texts;
    private final Column[] columns;
    private final long[] rounds = new long[ROWS_MAX];
    private final long[] places = new long[ROWS_MAX];

    /** Numbers of the events of the batch. */
    final long[] numbers = new long[ROWS_MAX];
    /** Rows of the batch. */
    int rows;

    BatchMaker(Parameters parameters, Column[] columns) {
        this.parameters = parameters;
        this.columns = columns;
        stream = new EventStream(parameters);
        texts = new Texts(parameters);
    }

    /** The next events of a split below {@code limit}; the split is moved on. Perhaps none. */
    VectorizedColumnBatch next(NexmarkSplit split, long limit) {
        collect(split, limit);
        byte[] kinds = parameters.kind == null ? kinds() : null;
        ColumnVector[] vectors = new ColumnVector[columns.length];
        for (int i = 0; i < columns.length; i++) {
            vectors[i] = vector(columns[i], kinds);
        }
        VectorizedColumnBatch batch = new VectorizedColumnBatch(vectors);
        batch.setNumRows(rows);
        return batch;
    }

    private void collect(NexmarkSplit split, long limit) {
        rows = 0;
        long roundEvents = parameters.roundEvents();
        long from = from(), to = to();
        for (int left = NUMBERS_MAX; rows < ROWS_MAX && left > 0 && split.next < limit; ) {
            long number = split.next;
            long end = Math.min(Math.min(split.blockEnd(), limit), number + left);
            left -= end - number;
            long round = number / roundEvents, place = number % roundEvents;
            for (; number < end && rows < ROWS_MAX; number++) {
                if (place >= from && place < to) {
                    numbers[rows] = number;
                    rounds[rows] = round;
                    places[rows++] = place;
                }
                if (++place == roundEvents) {
                    place = 0;
                    round++;
                }
            }
            split.advanceTo(number);
        }
    }

    /** Where the wanted kind begins in the pattern. */
    private long from() {
        if (parameters.kind == null || parameters.kind == Kind.PERSON) {
            return 0;
        }
        return parameters.kind == Kind.AUCTION ? parameters.people : parameters.people + parameters.auctions;
    }

    private long to() {
        if (parameters.kind == null || parameters.kind == Kind.BID) {
            return parameters.roundEvents();
        }
        return parameters.kind == Kind.AUCTION ? parameters.people + parameters.auctions : parameters.people;
    }

    private byte[] kinds() {
        byte[] kinds = new byte[rows];
        for (int row = 0; row < rows; row++) {
            long place = places[row];
            Kind kind = place < parameters.people
                    ? Kind.PERSON
                    : place < parameters.people + parameters.auctions ? Kind.AUCTION : Kind.BID;
            kinds[row] = (byte) kind.ordinal();
        }
        return kinds;
    }

    private ColumnVector vector(Column column, byte[] kinds) {
        if (column.kind == null) {
            return new Columns.Kinds(kinds);
        }
        if (column.field != null) {
            return field(column.field, kinds);
        }
        ColumnVector[] fields = new ColumnVector[column.fields.length];
        for (int i = 0; i < fields.length; i++) {
            fields[i] = field(column.fields[i], kinds);
        }
        return new Columns.Rows(kinds, column.kind, new VectorizedColumnBatch(fields));
    }

    private ColumnVector field(Field field, byte[] kinds) {
        switch (field.type) {
            case NUMBER:
                return new Columns.Numbers(kinds, field.kind, values(field, kinds));
            case TIME:
                return new Columns.Times(kinds, field.kind, values(field, kinds));
            default:
                return new Columns.Text(kinds, field.kind, texts(field, kinds));
        }
    }

    private TextBuffer texts(Field field, byte[] kinds) {
        TextBuffer buffer = new TextBuffer(rows, 96);
        for (int row = 0; row < rows; row++) {
            if (kinds == null || kinds[row] == field.kind.ordinal()) {
                texts.write(field, numbers[row], buffer);
            }
            buffer.endText();
        }
        return buffer;
    }

    private long[] values(Field field, byte[] kinds) {
        long[] values = new long[rows];
        for (int row = 0; row < rows; row++) {
            if (kinds == null || kinds[row] == field.kind.ordinal()) {
                values[row] = value(field, numbers[row], rounds[row], places[row]);
            }
        }
        return values;
    }

    private long value(Field field, long number, long round, long place) {
        switch (field) {
            case PERSON_ID:
                return stream.personId(round, place);
            case AUCTION_ID:
                return stream.auctionId(round, place);
            case AUCTION_INITIAL_BID:
                return stream.auctionInitialBid(number);
            case AUCTION_RESERVE:
                return stream.auctionReserve(number);
            case AUCTION_EXPIRES:
                return stream.auctionExpiresMs(number);
            case AUCTION_SELLER:
                return stream.auctionSeller(number, round, place);
            case AUCTION_CATEGORY:
                return stream.auctionCategory(number);
            case BID_AUCTION:
                return stream.bidAuction(number, round, place);
            case BID_BIDDER:
                return stream.bidBidder(number, round, place);
            case BID_PRICE:
                return stream.bidPrice(number);
            case PERSON_DATE_TIME:
            case AUCTION_DATE_TIME:
            case BID_DATE_TIME:
                return stream.timeMs(number);
            default:
                throw new IllegalArgumentException(field + " is no number");
        }
    }
}
