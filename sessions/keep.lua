-- KEYS: a session's hash. ARGV: what its field kept holds as far as the caller knows ("": nothing), and what it is to hold
if (redis.call('HGET', KEYS[1], 'kept') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'kept', ARGV[2])
return 1
