package mainstem.nexmark;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.LookupFunction;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/** Finds rows of CSV files, which it holds in memory, by one column. */
public final class Lookup extends LookupFunction {
    private static final long serialVersionUID = 1;

    private final String path;
    private final ArrayList<LogicalType> types;
    private final int key;
    private transient Map<Object, List<RowData>> rows;

    Lookup(String path, List<LogicalType> types, int key) {
        this.path = path;
        this.types = new ArrayList<>(types);
        this.key = key;
    }

    @Override
    public void open(FunctionContext context) throws Exception {
        rows = new HashMap<>();
        List<Path> files;
        try (Stream<Path> found = Files.list(Path.of(path))) {
            files = found.filter(file -> !file.getFileName().toString().startsWith(".")).collect(Collectors.toList());
        }
        for (Path file : files) {
            for (String line : Files.readAllLines(file)) {
                add(line.split(",", -1));
            }
        }
    }

    private void add(String[] fields) throws IOException {
        if (fields.length != types.size()) {
            throw new IOException("a line of " + path + " has " + fields.length + " fields, not " + types.size());
        }
        GenericRowData row = new GenericRowData(fields.length);
        for (int i = 0; i < fields.length; i++) {
            boolean isNumber = types.get(i).is(LogicalTypeRoot.BIGINT);
            row.setField(i, isNumber ? (Object) Long.valueOf(fields[i]) : StringData.fromString(fields[i]));
        }
        rows.computeIfAbsent(row.getField(key), unused -> new ArrayList<>()).add(row);
    }

    @Override
    public Collection<RowData> lookup(RowData keyRow) {
        Object wanted = types.get(key).is(LogicalTypeRoot.BIGINT) ? (Object) keyRow.getLong(0) : keyRow.getString(0);
        return rows.getOrDefault(wanted, List.of());
    }
}
