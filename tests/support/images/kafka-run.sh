#!/bin/bash
# KAFKA_SOME_NAME=value is the setting some.name; the store is formatted once, for CLUSTER_ID.
set -euo pipefail
settings=/opt/kafka/config/server.properties
: > "$settings"
for name in "${!KAFKA_@}"; do
    case "$name" in KAFKA_HEAP_OPTS | KAFKA_LOG4J_ROOT_LOGLEVEL) continue ;; esac
    key=${name#KAFKA_}
    key=${key//_/.}
    echo "${key,,}=${!name}" >> "$settings"
done
cat > /opt/kafka/config/log4j2.properties <<END
rootLogger.level = ${KAFKA_LOG4J_ROOT_LOGLEVEL:-INFO}
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.name = STDOUT
appender.stdout.type = Console
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %p %m (%c)%n
END
java=(/opt/java/bin/java ${KAFKA_HEAP_OPTS:--Xms256m -Xmx768m} "-Xlog:gc:file=/opt/kafka/logs/gc.log"
    "-Dlog4j2.configurationFile=/opt/kafka/config/log4j2.properties" -cp "/opt/kafka/libs/*")
if [ ! -e "${KAFKA_LOG_DIRS}/meta.properties" ]; then
    "${java[@]}" kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$settings"
fi
exec "${java[@]}" kafka.Kafka "$settings"
