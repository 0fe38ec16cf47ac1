import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What the benchmark asks of a broker, by Kafka's own client. Started by kafka.py from its source.
 *
 * <pre>
 *   Probe SERVERS create TOPIC PARTITIONS
 *   Probe SERVERS sum TOPIC                              messages and the sum of their "bids", as a reader of committed ones sees them
 *   Probe SERVERS produce TOPIC RATE SECONDS KEYS        a bid each 1/RATE seconds, its event time the time of its making
 *   Probe SERVERS lag TOPIC SECONDS                      how much later than its window's end each result is visible
 * </pre>
 */
public class Probe {
    private static final int BATCH_MILLISECONDS = 5;
    private final String servers;

    private Probe(String servers) {
        this.servers = servers;
    }

    public static void main(String[] arguments) throws Exception {
        Probe probe = new Probe(arguments[0]);
        String topic = arguments[2];
        switch (arguments[1]) {
            case "create" -> probe.create(topic, Integer.parseInt(arguments[3]));
            case "sum" -> probe.sum(topic);
            case "produce" -> probe.produce(topic, Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]), Integer.parseInt(arguments[5]));
            case "lag" -> probe.lag(topic, Integer.parseInt(arguments[3]));
            default -> throw new IllegalArgumentException(arguments[1]);
        }
    }

    private Properties properties(Map<String, String> more) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", servers);
        properties.putAll(more);
        return properties;
    }

    private void create(String topic, int partitions) throws Exception {
        try (Admin admin = Admin.create(properties(Map.of()))) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        }
    }

    private KafkaConsumer<String, String> consumer() {
        var settings = Map.of("isolation.level", "read_committed", "auto.offset.reset", "earliest", "fetch.max.wait.ms", "5");
        return new KafkaConsumer<>(properties(settings), new StringDeserializer(), new StringDeserializer());
    }

    private static List<TopicPartition> partitions(KafkaConsumer<String, String> consumer, String topic) {
        return consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).collect(Collectors.toList());
    }

    private void sum(String topic) {
        long messages = 0;
        long sum = 0;
        try (var consumer = consumer()) {
            var partitions = partitions(consumer, topic);
            consumer.assign(partitions);
            var ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    messages++;
                    sum += number(record.value(), "\"bids\":");
                }
            }
        }
        System.out.println(messages + " " + sum);
    }

    private void produce(String topic, int rate, int seconds, int keys) throws Exception {
        var settings = Map.of("linger.ms", "2", "acks", "1", "batch.size", "131072", "buffer.memory", "134217728");
        try (var producer = new KafkaProducer<>(properties(settings), new StringSerializer(), new StringSerializer())) {
            int partitions = producer.partitionsFor(topic).size();
            long begun = System.currentTimeMillis();
            long sent = 0;
            while (sent < (long) rate * seconds) {
                long now = System.currentTimeMillis();
                long due = Math.min((now - begun) * rate / 1000, (long) rate * seconds);
                for (; sent < due; sent++) {
                    String value = "{\"auction\":" + (sent * 7919 % keys) + ",\"bidder\":" + sent + ",\"price\":" + (sent % 1000)
                        + ",\"at\":" + now + ",\"channel\":\"channel-" + (sent % 97) + "\",\"url\":\"https://www.example.com/item/" + sent + "\"}";
                    producer.send(new ProducerRecord<>(topic, (int) (sent % partitions), null, value));
                }
                Thread.sleep(BATCH_MILLISECONDS);
            }
        }
    }

    private void lag(String topic, int seconds) {
        List<Long> lags = new ArrayList<>();
        try (var consumer = consumer()) {
            var partitions = partitions(consumer, topic);
            consumer.assign(partitions);
            consumer.seekToEnd(partitions);
            long until = System.currentTimeMillis() + seconds * 1000L;
            while (System.currentTimeMillis() < until) {
                var records = consumer.poll(Duration.ofMillis(20));
                long now = System.currentTimeMillis();
                for (ConsumerRecord<String, String> record : records) {
                    lags.add(now - number(record.value(), "\"ended\":"));
                }
            }
        }
        long[] sorted = lags.stream().mapToLong(Long::longValue).sorted().toArray();
        if (sorted.length == 0) {
            System.out.println("0 0 0 0");
            return;
        }
        System.out.println(sorted.length + " " + at(sorted, 0.5) + " " + at(sorted, 0.99) + " " + sorted[sorted.length - 1]);
    }

    private static long at(long[] sorted, double part) {
        return sorted[(int) Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
    }

    /** The number behind a name in flat JSON. */
    private static long number(String json, String name) {
        int from = json.indexOf(name) + name.length();
        int to = from;
        while (to < json.length() && (Character.isDigit(json.charAt(to)) || json.charAt(to) == '-')) {
            to++;
        }
        return Long.parseLong(json.substring(from, to));
    }
}
