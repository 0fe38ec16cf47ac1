package mainstem.nexmark;

/** The kinds of event, in the order of {@code event_type}. */
enum Kind {
    PERSON,
    AUCTION,
    BID;

    /** The name in options and columns. */
    String sqlName() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }
}
