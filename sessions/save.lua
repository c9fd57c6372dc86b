-- KEYS: the session's hash, the live index. ARGV: json, fence, thread key, last turn (unix s), live (1 or 0).
-- Returns 1 when written, 0 when a newer claim wrote before. Fence 0 is nobody's claim: it writes only where no session is.
local have = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if tonumber(ARGV[2]) < have then return 0 end
if ARGV[2] == '0' and redis.call('HGET', KEYS[1], 'json') then return 0 end
redis.call('HSET', KEYS[1], 'json', ARGV[1], 'fence', ARGV[2])
if ARGV[5] == '1' then
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
else
  redis.call('ZREM', KEYS[2], ARGV[3])
end
return 1
