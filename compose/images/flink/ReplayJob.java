import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.ParameterTool;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * The job of a replay (mqtest/jobs.py) on Flink's DataStream API: count and sum of each place, key and time window, one
 * output for each input, into the same place of the topic of outputs.
 *
 * <p>--guarantee says how it is run, in Flink's own words: exactly-once (checkpoints, the sink in transactions),
 * at-least-once (checkpoints, the sink without transactions) or none (no checkpoints, positions committed by the
 * consumer itself, the sink without transactions, the state in memory alone: what not to do).
 */
public final class ReplayJob {

  /** One message of the workload. */
  public static class Input {
    public int place;
    public long offset;
    public long producer;
    public long seq;
    public int key;
    public long window;
    public long amount;

    /** Place, key and window in one number. */
    public long name() {
      return (long) place << 48 | (long) key << 32 | window;
    }
  }

  /** One message of the topic of outputs. */
  public static class Output {
    public int place;
    public byte[] body;
  }

  public static void main(String[] args) throws Exception {
    ParameterTool asked = ParameterTool.fromArgs(args);
    DeliveryGuarantee guarantee =
        DeliveryGuarantee.valueOf(asked.getRequired("guarantee").toUpperCase().replace('-', '_'));
    boolean checkpoints = guarantee != DeliveryGuarantee.NONE;

    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(settings(asked, checkpoints));
    env.setParallelism(1);
    env.fromSource(source(asked, checkpoints), WatermarkStrategy.noWatermarks(), "inputs")
        .uid("inputs")
        .keyBy(Input::name)
        .process(new Totals(asked.getLong("run")))
        .uid("totals")
        .sinkTo(sink(asked, guarantee))
        .uid("outputs");
    env.execute(asked.getRequired("name"));
  }

  private static Configuration settings(ParameterTool asked, boolean checkpoints) {
    Configuration settings = new Configuration();
    settings.setString("restart-strategy.type", "fixed-delay");
    settings.setString("restart-strategy.fixed-delay.attempts", "1000");
    settings.setString("restart-strategy.fixed-delay.delay", "1 s");
    if (checkpoints) {
      settings.setString("execution.checkpointing.interval", asked.getRequired("checkpoint-ms") + " ms");
      settings.setString("execution.checkpointing.tolerable-failed-checkpoints", "1000");
    }
    return settings;
  }

  private static KafkaSource<Input> source(ParameterTool asked, boolean checkpoints) {
    return KafkaSource.<Input>builder()
        .setBootstrapServers(asked.getRequired("bootstrap"))
        .setTopics(asked.getRequired("input"))
        .setGroupId(asked.getRequired("group"))
        .setStartingOffsets(OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST))
        .setDeserializer(
            new Inputs(asked.getLong("run"), asked.getInt("keys"), asked.getLong("window-ns")))
        .setProperty("isolation.level", asked.getRequired("isolation"))
        .setProperty("enable.auto.commit", String.valueOf(!checkpoints))
        .setProperty("commit.offsets.on.checkpoint", String.valueOf(checkpoints))
        .build();
  }

  private static KafkaSink<Output> sink(ParameterTool asked, DeliveryGuarantee guarantee) {
    Properties producer = new Properties();
    producer.setProperty("transaction.timeout.ms", asked.getRequired("transaction-ms"));
    return KafkaSink.<Output>builder()
        .setBootstrapServers(asked.getRequired("bootstrap"))
        .setDeliveryGuarantee(guarantee)
        .setTransactionalIdPrefix(asked.getRequired("name"))
        .setKafkaProducerConfig(producer)
        .setRecordSerializer(new Outputs(asked.getRequired("output")))
        .build();
  }

  /** Those of the workload: the runner's own are not passed on, nor is what cannot be told. */
  private static final class Inputs implements KafkaRecordDeserializationSchema<Input> {
    private final long run;
    private final int keys;
    private final long windowNs;

    Inputs(long run, int keys, long windowNs) {
      this.run = run;
      this.keys = keys;
      this.windowNs = windowNs;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Input> out) {
      Form.Head head = Form.decode(record.value());
      if (head == null || head.run() != run || head.producer() == Form.RUNNER) return;
      Input input = new Input();
      input.place = record.partition();
      input.offset = record.offset();
      input.producer = head.producer();
      input.seq = head.seq();
      input.key = Form.key(head.producer(), head.seq(), keys);
      input.window = head.dueNs() / windowNs;
      input.amount = Form.amount(head.producer(), head.seq());
      out.collect(input);
    }

    @Override
    public TypeInformation<Input> getProducedType() {
      return TypeInformation.of(Input.class);
    }
  }

  /** Count and sum of one place, key and window. */
  private static final class Totals extends KeyedProcessFunction<Long, Input, Output> {
    private final long run;
    private transient ValueState<Tuple2<Long, Long>> total;

    Totals(long run) {
      this.run = run;
    }

    @Override
    public void open(OpenContext context) {
      total =
          getRuntimeContext()
              .getState(new ValueStateDescriptor<>("total", Types.TUPLE(Types.LONG, Types.LONG)));
    }

    @Override
    public void processElement(Input in, Context context, Collector<Output> out) throws Exception {
      Tuple2<Long, Long> before = total.value();
      long messages = (before == null ? 0 : before.f0) + 1;
      long amount = (before == null ? 0 : before.f1) + in.amount;
      total.update(Tuple2.of(messages, amount));
      Output output = new Output();
      output.place = in.place;
      output.body =
          Form.encode(run, in.producer, in.seq, in.key, in.place, in.window, messages, amount, in.offset);
      out.collect(output);
    }
  }

  /** To the place of the input. */
  private static final class Outputs implements KafkaRecordSerializationSchema<Output> {
    private final String topic;

    Outputs(String topic) {
      this.topic = topic;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(Output output, KafkaSinkContext context, Long timestamp) {
      return new ProducerRecord<>(topic, output.place, null, output.body);
    }
  }
}
