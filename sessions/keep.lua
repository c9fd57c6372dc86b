-- KEYS: a session's hash, the audit stream. ARGV: what the hash's field kept holds as far as the caller knows ("": nothing), what it is to hold, the entry for
-- the stream (json; "": none), the lowest id that it keeps.
-- Returns 1 when written, 0 when somebody has kept the session since.
if (redis.call('HGET', KEYS[1], 'kept') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'kept', ARGV[2])
if ARGV[3] ~= '' then redis.call('XADD', KEYS[2], 'MINID', '~', ARGV[4], '*', 'json', ARGV[3]) end
return 1
