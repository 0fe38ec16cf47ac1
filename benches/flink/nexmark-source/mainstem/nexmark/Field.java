package mainstem.nexmark;

import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeFamily;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

/** The fields of the events. */
enum Field {
    PERSON_ID(Kind.PERSON, "id", Type.NUMBER),
    PERSON_NAME(Kind.PERSON, "name", Type.TEXT),
    PERSON_EMAIL(Kind.PERSON, "emailAddress", Type.TEXT),
    PERSON_CREDIT_CARD(Kind.PERSON, "creditCard", Type.TEXT),
    PERSON_CITY(Kind.PERSON, "city", Type.TEXT),
    PERSON_STATE(Kind.PERSON, "state", Type.TEXT),
    PERSON_DATE_TIME(Kind.PERSON, "dateTime", Type.TIME),
    PERSON_EXTRA(Kind.PERSON, "extra", Type.TEXT),
    AUCTION_ID(Kind.AUCTION, "id", Type.NUMBER),
    AUCTION_ITEM_NAME(Kind.AUCTION, "itemName", Type.TEXT),
    AUCTION_DESCRIPTION(Kind.AUCTION, "description", Type.TEXT),
    AUCTION_INITIAL_BID(Kind.AUCTION, "initialBid", Type.NUMBER),
    AUCTION_RESERVE(Kind.AUCTION, "reserve", Type.NUMBER),
    AUCTION_DATE_TIME(Kind.AUCTION, "dateTime", Type.TIME),
    AUCTION_EXPIRES(Kind.AUCTION, "expires", Type.TIME),
    AUCTION_SELLER(Kind.AUCTION, "seller", Type.NUMBER),
    AUCTION_CATEGORY(Kind.AUCTION, "category", Type.NUMBER),
    AUCTION_EXTRA(Kind.AUCTION, "extra", Type.TEXT),
    BID_AUCTION(Kind.BID, "auction", Type.NUMBER),
    BID_BIDDER(Kind.BID, "bidder", Type.NUMBER),
    BID_PRICE(Kind.BID, "price", Type.NUMBER),
    BID_CHANNEL(Kind.BID, "channel", Type.TEXT),
    BID_URL(Kind.BID, "url", Type.TEXT),
    BID_DATE_TIME(Kind.BID, "dateTime", Type.TIME),
    BID_EXTRA(Kind.BID, "extra", Type.TEXT);

    /** What type a field has. */
    enum Type {
        NUMBER,
        TEXT,
        TIME;

        private boolean fits(LogicalType type) {
            switch (this) {
                case NUMBER:
                    return type.is(LogicalTypeRoot.BIGINT);
                case TEXT:
                    return type.is(LogicalTypeFamily.CHARACTER_STRING);
                default:
                    return type.is(LogicalTypeFamily.TIMESTAMP);
            }
        }
    }

    final Kind kind;
    final Type type;
    private final String sqlName;

    Field(Kind kind, String sqlName, Type type) {
        this.kind = kind;
        this.sqlName = sqlName;
        this.type = type;
    }

    /** The field of a kind of event that a column of this name and type holds. */
    static Field of(Kind kind, String name, LogicalType type) {
        for (Field field : values()) {
            if (field.kind == kind && field.sqlName.equals(name) && field.type.fits(type)) {
                return field;
            }
        }
        throw new ValidationException(
                "column '" + name + "' " + type + " is no field of the Nexmark event '" + kind.sqlName()
                        + "'; see docs/connectors/nexmark.md");
    }
}
