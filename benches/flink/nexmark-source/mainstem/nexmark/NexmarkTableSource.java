package mainstem.nexmark;

import java.util.List;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSource;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.source.DataStreamScanProvider;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.ScanTableSource;
import org.apache.flink.table.connector.source.abilities.SupportsProjectionPushDown;
import org.apache.flink.table.connector.source.abilities.SupportsWatermarkPushDown;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.RowType;

/**
 * A table of Nexmark events. Makes only the columns that the query reads, and the watermarks where the rows are made, as
 * Flink's own connectors do where they can.
 */
final class NexmarkTableSource implements ScanTableSource, SupportsProjectionPushDown, SupportsWatermarkPushDown {
    private final Parameters parameters;
    private final RowType declared;
    private DataType produced;
    private Column[] columns;
    private WatermarkStrategy<RowData> watermarks = WatermarkStrategy.noWatermarks();

    NexmarkTableSource(Parameters parameters, DataType declaredType) {
        this.parameters = parameters;
        declared = (RowType) declaredType.getLogicalType();
        produced = declaredType;
        columns = new Column[declared.getFieldCount()];
        for (int i = 0; i < columns.length; i++) {
            columns[i] = column(new int[] {i});
        }
    }

    /** What the column at a path holds: a column of the table, or a field of such a column. */
    private Column column(int[] path) {
        RowType.RowField top = declared.getFields().get(path[0]);
        if (parameters.kind != null) {
            return Column.of(Field.of(parameters.kind, top.getName(), top.getType()));
        }
        if (top.getName().equals("event_type") && top.getType().is(LogicalTypeRoot.INTEGER)) {
            return Column.eventType();
        }
        Kind kind = List.of(Kind.values()).stream()
                .filter(k -> k.sqlName().equals(top.getName()) && top.getType() instanceof RowType && top.getType().isNullable())
                .findAny()
                .orElseThrow(() -> new ValidationException(
                        "column '" + top.getName() + "' is none of event_type INT, person ROW, auction ROW and bid ROW;"
                                + " see docs/connectors/nexmark.md"));
        List<RowType.RowField> fields = ((RowType) top.getType()).getFields();
        if (path.length > 1) {
            return Column.of(field(kind, fields.get(path[1])));
        }
        return Column.row(kind, fields.stream().map(f -> field(kind, f)).toArray(Field[]::new));
    }

    private static Field field(Kind kind, RowType.RowField field) {
        LogicalType type = field.getType();
        return Field.of(kind, field.getName(), type);
    }

    @Override
    public boolean supportsNestedProjection() {
        return true;
    }

    @Override
    public void applyProjection(int[][] paths, DataType producedType) {
        produced = producedType;
        columns = new Column[paths.length];
        for (int i = 0; i < paths.length; i++) {
            columns[i] = column(paths[i]);
        }
    }

    @Override
    public void applyWatermark(WatermarkStrategy<RowData> strategy) {
        watermarks = strategy;
    }

    @Override
    public ChangelogMode getChangelogMode() {
        return ChangelogMode.insertOnly();
    }

    @Override
    public ScanRuntimeProvider getScanRuntimeProvider(ScanContext scan) {
        NexmarkSource source = new NexmarkSource(parameters, columns);
        WatermarkStrategy<RowData> strategy = watermarks;
        DataType type = produced;
        return new DataStreamScanProvider() {
            @Override
            public DataStream<RowData> produceDataStream(ProviderContext provider, StreamExecutionEnvironment environment) {
                DataStreamSource<RowData> stream =
                        environment.fromSource(source, strategy, "nexmark", scan.createTypeInformation(type));
                provider.generateUid("nexmark").ifPresent(stream::uid);
                return stream;
            }

            @Override
            public boolean isBounded() {
                return true;
            }
        };
    }

    @Override
    public DynamicTableSource copy() {
        NexmarkTableSource copy = new NexmarkTableSource(parameters, produced, declared, columns);
        copy.watermarks = watermarks;
        return copy;
    }

    private NexmarkTableSource(Parameters parameters, DataType produced, RowType declared, Column[] columns) {
        this.parameters = parameters;
        this.produced = produced;
        this.declared = declared;
        this.columns = columns;
    }

    @Override
    public String asSummaryString() {
        return "nexmark";
    }
}
