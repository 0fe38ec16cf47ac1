package mainstem.nexmark;

import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.LookupTableSource;
import org.apache.flink.table.connector.source.lookup.LookupFunctionProvider;
import org.apache.flink.table.types.DataType;

/** A table of CSV files of whole numbers and texts, which is read once and found by one column. */
final class LookupTable implements LookupTableSource {
    private final String path;
    private final DataType type;

    LookupTable(String path, DataType type) {
        this.path = path;
        this.type = type;
    }

    @Override
    public LookupRuntimeProvider getLookupRuntimeProvider(LookupContext context) {
        int[][] keys = context.getKeys();
        if (keys.length != 1 || keys[0].length != 1) {
            throw new ValidationException("tables of 'csv-lookup' are found by one column");
        }
        return LookupFunctionProvider.of(new Lookup(path, type.getLogicalType().getChildren(), keys[0][0]));
    }

    @Override
    public DynamicTableSource copy() {
        return new LookupTable(path, type);
    }

    @Override
    public String asSummaryString() {
        return "csv-lookup";
    }
}
