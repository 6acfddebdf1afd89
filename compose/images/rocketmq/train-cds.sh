#!/bin/bash
# Trains the class-data archives coordinator.jsa and broker.jsa with one short-lived node of each, that end in good order.
set -eu
lib=$(echo /home/rocketmq/rocketmq-*/lib)
export ROCKETMQ_HOME="${lib%/lib}"
work=$(mktemp -d)
mkdir -p "$work/namesrv"
# the build may share the host's network, so the ports are drawn, below the range that clients get theirs from
port=$((30000 + $(od -An -N2 -tu2 /dev/urandom) % 100 * 20))
cat >"$work/coordinator.conf" <<P
listenPort=$port
kvConfigPath=$work/namesrv/kvConfig.json
configStorePath=$work/namesrv/namesrv.properties
enableControllerInNamesrv=true
controllerDLegerGroup=train
controllerDLegerPeers=n0-127.0.0.1:$((port + 1))
controllerDLegerSelfId=n0
controllerStorePath=$work/controller
mappedFileSize=16777216
P
cat >"$work/broker.conf" <<P
brokerName=train
brokerId=-1
brokerRole=SLAVE
brokerIP1=127.0.0.1
brokerIP2=127.0.0.1
listenPort=$((port + 10))
haListenPort=$((port + 12))
namesrvAddr=127.0.0.1:$port
enableControllerMode=true
controllerAddr=127.0.0.1:$((port + 1))
storePathRootDir=$work/store
mappedFileSizeCommitLog=16777216
mappedFileSizeConsumeQueue=1200000
maxHashSlotNum=50000
maxIndexNum=200000
timerWheelEnable=false
P

# train NAME MAIN SIGN: start a node in the background; until its log has SIGN, and a few seconds of its timers
train() {
  java "-XX:ArchiveClassesAtExit=$ROCKETMQ_HOME/$1.jsa" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    --add-opens=java.base/{java.lang,java.nio,java.util,jdk.internal.misc,sun.nio.ch}=ALL-UNNAMED \
    --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED \
    -Dtls.server.mode=disabled "-Duser.home=$work" \
    -cp "$ROCKETMQ_HOME/conf:$lib/*" "$2" -c "$work/$1.conf" >"$work/$1.log" 2>&1 &
  for try in $(seq 240); do
    if grep -q "$3" "$work/$1.log"; then return; fi
    if ! kill -0 $! || [ "$try" = 240 ]; then tail "$work/$1.log"; echo "the $1 did not start" >&2; exit 1; fi
    sleep 0.25
  done
}

train coordinator org.apache.rocketmq.namesrv.NamesrvStartup "ControllerManager boot success"
coordinator=$!
train broker org.apache.rocketmq.broker.BrokerStartup "boot success"
broker=$!
sleep 4  # its timers: heartbeats, what it asks of controller and name server
for node in $broker $coordinator; do
  kill -TERM $node
  wait $node || true # a JVM that ends on SIGTERM exits with 143
done
ls -l "$ROCKETMQ_HOME/coordinator.jsa" "$ROCKETMQ_HOME/broker.jsa"
rm -rf "$work"
