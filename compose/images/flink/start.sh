#!/bin/sh
# start.sh jobmanager|taskmanager|zookeeper: becomes that part of Flink. MQTEST_JOBMANAGER, MQTEST_TASKMANAGER and
# MQTEST_ZOOKEEPER are their addresses.
set -eu
role=$1
home=/opt/flink

# what Flink's own configuration opens to it (env.java.opts.all), of what a job without tables needs
set -- --add-exports=java.base/sun.net.util=ALL-UNNAMED
for package in lang lang.reflect net io nio text time util util.concurrent util.concurrent.atomic util.concurrent.locks; do
  set -- "$@" "--add-opens=java.base/java.$package=ALL-UNNAMED"
done
set -- "$@" --add-opens=java.base/sun.nio.ch=ALL-UNNAMED -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError \
  "-Dlog4j2.configurationFile=$home/conf/log4j2.properties" -cp "$home/lib/*"

case $role in
zookeeper)
  mkdir -p /checkpoints/zookeeper
  exec java -Xmx96m -Dzookeeper.admin.enableServer=false "$@" \
    org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.ZooKeeperServerMain 2181 /checkpoints/zookeeper 1000
  ;;
jobmanager)
  mkdir -p $home/jobs/flink-web-upload
  cp $home/job.jar $home/jobs/flink-web-upload/
  exec java -Xmx448m "$@" org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint \
    --configDir $home/conf -D "jobmanager.rpc.address=$MQTEST_JOBMANAGER" -D "rest.address=$MQTEST_JOBMANAGER" \
    -D "high-availability.zookeeper.quorum=$MQTEST_ZOOKEEPER:2181"
  ;;
taskmanager)
  exec java -Xmx448m -XX:MaxDirectMemorySize=192m "$@" org.apache.flink.runtime.taskexecutor.TaskManagerRunner \
    --configDir $home/conf -D "jobmanager.rpc.address=$MQTEST_JOBMANAGER" -D "taskmanager.host=$MQTEST_TASKMANAGER" \
    -D "high-availability.zookeeper.quorum=$MQTEST_ZOOKEEPER:2181"
  ;;
*)
  echo "start.sh: $role is no part of Flink" >&2
  exit 64
  ;;
esac
