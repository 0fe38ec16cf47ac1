package mainstem.nexmark;

import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.factories.DynamicTableSourceFactory;
import org.apache.flink.table.factories.FactoryUtil;

/**
 * Makes tables of the connector 'nexmark'. Knows the options of {@code docs/connectors/nexmark.md} that say which
 * events there are, and {@code rate.limited}; options that shuffle or split the stream are refused, and it must have an end.
 */
public final class NexmarkTableFactory implements DynamicTableSourceFactory {
    private static final ConfigOption<String> TABLE = ConfigOptions.key("table").stringType().noDefaultValue();
    private static final ConfigOption<String> BASE_TIME =
            ConfigOptions.key("base-time").stringType().defaultValue("2026-01-01 00:00:00");
    private static final ConfigOption<Long> EVENTS = ConfigOptions.key("events.num").longType().noDefaultValue();
    private static final ConfigOption<Long> FIRST_RATE = ConfigOptions.key("first-event.rate").longType().noDefaultValue();
    private static final ConfigOption<Long> NEXT_RATE = ConfigOptions.key("next-event.rate").longType().noDefaultValue();
    private static final ConfigOption<Boolean> LIMITED =
            ConfigOptions.key("rate.limited").booleanType().defaultValue(false);
    /** Numbers with their defaults. */
    private static final Map<String, Long> NUMBERS = Map.ofEntries(
            Map.entry("seed", 42L),
            Map.entry("person.proportion", 1L),
            Map.entry("auction.proportion", 3L),
            Map.entry("bid.proportion", 46L),
            Map.entry("bid.hot-ratio.auctions", 2L),
            Map.entry("bid.hot-ratio.bidders", 4L),
            Map.entry("auction.hot-ratio.sellers", 4L),
            Map.entry("person.active", 1000L),
            Map.entry("auction.in-flight", 100L),
            Map.entry("person.avg-size", 200L),
            Map.entry("auction.avg-size", 500L),
            Map.entry("bid.avg-size", 100L));

    private static ConfigOption<Long> number(String key) {
        return ConfigOptions.key(key).longType().defaultValue(NUMBERS.get(key));
    }

    @Override
    public String factoryIdentifier() {
        return "nexmark";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(EVENTS);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        Set<ConfigOption<?>> options = new LinkedHashSet<>(Arrays.asList(TABLE, BASE_TIME, FIRST_RATE, NEXT_RATE, LIMITED));
        NUMBERS.keySet().forEach(key -> options.add(number(key)));
        return options;
    }

    @Override
    public DynamicTableSource createDynamicTableSource(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        helper.validate();
        return new NexmarkTableSource(parameters(helper.getOptions()), context.getPhysicalRowDataType());
    }

    private static Parameters parameters(ReadableConfig options) {
        Parameters p = new Parameters();
        p.kind = kind(options);
        p.end = options.get(EVENTS);
        check(p.end > 0 && p.end < Long.MAX_VALUE / 2000, "events.num", p.end);
        p.baseTimeMs = baseTimeMs(options.get(BASE_TIME));
        p.eventsPerSecond = rate(options);
        p.isPaced = options.get(LIMITED);
        p.seed = options.get(number("seed"));
        p.people = natural(options, "person.proportion", 0);
        p.auctions = natural(options, "auction.proportion", 0);
        p.bids = natural(options, "bid.proportion", 0);
        p.hotAuctions = natural(options, "bid.hot-ratio.auctions", 1);
        p.hotBidders = natural(options, "bid.hot-ratio.bidders", 1);
        p.hotSellers = natural(options, "auction.hot-ratio.sellers", 1);
        p.activePeople = natural(options, "person.active", 1);
        p.auctionsInFlight = natural(options, "auction.in-flight", 1);
        p.personSize = natural(options, "person.avg-size", 0);
        p.auctionSize = natural(options, "auction.avg-size", 0);
        p.bidSize = natural(options, "bid.avg-size", 0);
        check(p.roundEvents() > 0, "bid.proportion", 0);
        return p;
    }

    private static Kind kind(ReadableConfig options) {
        String name = options.get(TABLE);
        if (name == null) {
            return null;
        }
        return Arrays.stream(Kind.values()).filter(kind -> kind.sqlName().equals(name)).findAny().orElseThrow(
                () -> new ValidationException("option 'table' must be person, auction or bid, not " + name));
    }

    private static long rate(ReadableConfig options) {
        Long first = options.get(FIRST_RATE), next = options.get(NEXT_RATE);
        if (first != null && next != null && !first.equals(next)) {
            throw new ValidationException("the options 'first-event.rate' and 'next-event.rate' differ; make them equal");
        }
        long rate = first != null ? first : next != null ? next : 10_000;
        check(rate > 0, "first-event.rate", rate);
        return rate;
    }

    private static long baseTimeMs(String text) {
        if (text.matches("-?[0-9]+")) {
            return Long.parseLong(text);
        }
        return LocalDateTime.parse(text.trim().replace(' ', 'T')).toInstant(ZoneOffset.UTC).toEpochMilli();
    }

    private static long natural(ReadableConfig options, String key, long least) {
        long value = options.get(number(key));
        check(value >= least && value <= 1_000_000, key, value);
        return value;
    }

    private static void check(boolean legal, String key, long value) {
        if (!legal) {
            throw new ValidationException("option '" + key + "' cannot be " + value + "; see docs/connectors/nexmark.md");
        }
    }
}
