#!/bin/sh
# Trains the class-data archives with one short-lived node: a format, a topic, a thousand messages, a clean stop. Keeps
# what the format made, so that a node need not start a JVM for it.
set -eu
work=$(mktemp -d)
# the build may share the host's network, so the ports are drawn, below the range that clients get theirs from
port=$((30000 + $(od -An -N2 -tu2 /dev/urandom) % 1000 * 2))
cat >"$work/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$work/data
offsets.topic.replication.factor=1
P
printf 'status=error\nrootLogger.level=error\n' >"$work/log4j2.properties"

run() { # run ARCHIVE|- MAIN ARGUMENTS…
  archive=$1
  shift
  [ "$archive" = - ] && flags="" || flags="-XX:ArchiveClassesAtExit=/opt/kafka/$archive"
  # shellcheck disable=SC2086  # no flag, no argument
  exec java $flags -Xmx256m -Dlog4j2.configurationFile="$work/log4j2.properties" -cp '/opt/kafka/libs/*' "$@"
}

(run storage.jsa kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c "$work/server.properties")
# What a format writes beside meta.properties: the feature levels of this version, the same for every node.
mkdir -p /opt/kafka/formatted
cp "$work/data/bootstrap.checkpoint" /opt/kafka/formatted/
(run kafka.jsa kafka.Kafka "$work/server.properties") &
node=$!

tries=0
until (run - org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" \
  --create --if-not-exists --topic train --partitions 1 --replication-factor 1); do
  tries=$((tries + 1))
  [ $tries -lt 5 ] && kill -0 $node || { echo "the node that trains the archive did not start" >&2; exit 1; }
  sleep 1
done
(run - org.apache.kafka.tools.ProducerPerformance --topic train --num-records 1000 --record-size 100 \
  --throughput -1 --producer-props "bootstrap.servers=127.0.0.1:$port" acks=all)
kill -TERM $node
wait $node || true # a JVM that ends on SIGTERM exits with 143
ls -l /opt/kafka/kafka.jsa /opt/kafka/storage.jsa
rm -rf "$work"
