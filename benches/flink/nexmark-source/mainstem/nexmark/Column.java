package mainstem.nexmark;

import java.io.Serializable;

/** What a column of the table holds: one field, a row of all fields of a kind, or the kind itself. */
final class Column implements Serializable {
    private static final long serialVersionUID = 1L;

    /** The only field; null: see {@code kind}. */
    final Field field;
    /** The kind whose fields make the row; null: the column is {@code event_type}. */
    final Kind kind;
    /** The fields of the row. */
    final Field[] fields;

    private Column(Field field, Kind kind, Field[] fields) {
        this.field = field;
        this.kind = kind;
        this.fields = fields;
    }

    static Column eventType() {
        return new Column(null, null, null);
    }

    static Column of(Field field) {
        return new Column(field, field.kind, null);
    }

    static Column row(Kind kind, Field[] fields) {
        return new Column(null, kind, fields);
    }
}
