-- For contracts whose messages have integer ids: whom a thread is kept for, and how an answer that stops for tools of the
-- client is told in parts. `client`: a call of a tool that the client runs, or the client's result. `beside`: the seq of
-- the call with which this one is shown as one message. `before`: the text said before that message's calls. `told`: how
-- many characters of an answer earlier messages have told.
ALTER TABLE threads ADD COLUMN end_user text;
ALTER TABLE messages
    ADD COLUMN client boolean NOT NULL DEFAULT false,
    ADD COLUMN beside bigint,
    ADD COLUMN before text,
    ADD COLUMN told integer NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN told integer NOT NULL DEFAULT 0;
CREATE INDEX messages_by_number ON messages (thread_id, number);
