"""Parley's records, their codec, the topics they live on, and the log port with its two adapters.

ids, clock          what everything is named by, and when
commands, facts     the catalogue of records (pydantic models), one class per type
codec, upcast       records <-> Kafka messages (CloudEvents 1.0, binary mode); old versions to new
pieces, counts      the compact batches on `parley.deltas`; what gateways tell each other on `parley.counts`
rates, declared     rate limits as people write them; the rules for agents and teams
tracing             W3C trace context, in and out of headers
fence               the epoch rule: which facts and pieces a reader may believe
reads               the answers of history's internal API, as both sides know them
topics, partition   the topic catalogue; murmur2
log                 the log port, the kafka and the embedded adapter
"""
