-- KEYS: a mark, the audit stream. ARGV: for how long the mark stays (s), the lowest id that the stream keeps, the entry (json).
-- Returns 1 when written, 0 when the mark is there.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('XADD', KEYS[2], 'MINID', '~', ARGV[2], '*', 'json', ARGV[3])
redis.call('SET', KEYS[1], 1, 'EX', ARGV[1])
return 1
