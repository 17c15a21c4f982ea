# Apache Kafka where no registry can be reached: the jars and the Java of this environment on a plain base, behaving as
# docker-compose.yml uses the official image (its user, its folders, `KAFKA_…` variables, `CLUSTER_ID`).
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN mkdir -p /opt/kafka/config /opt/kafka/logs /var/lib/kafka/data && chown -R 1000:1000 /opt/kafka /var/lib/kafka
COPY java /opt/java
COPY jars /opt/kafka/libs
COPY kafka-run.sh /etc/kafka/docker/run
USER 1000:1000
VOLUME /var/lib/kafka/data
CMD ["bash", "/etc/kafka/docker/run"]
