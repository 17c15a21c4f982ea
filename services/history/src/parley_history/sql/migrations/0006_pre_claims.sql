-- The offsets of the last claims of each partition below its position, oldest first: a new owner reads back a while before
-- the position, and has to know whom to believe there.

ALTER TABLE positions ADD COLUMN claims bigint[] NOT NULL DEFAULT '{}';
UPDATE positions SET claims = ARRAY[epoch] WHERE epoch >= 0;
