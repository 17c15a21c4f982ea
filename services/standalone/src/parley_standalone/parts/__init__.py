"""The real parts that Parley runs on, as local processes: Apache Kafka and PostgreSQL.

process     a child process: started, watched, stopped, never left behind
java        a Java 17 or newer: from the path, else from a wheel
kafka       one broker (KRaft), from its published jars
postgres    one server, from the binaries of a wheel
service     one process of a service of Parley's
"""
