-- KEYS: a mark, a session's hash, the mark of an entry of the audit stream, that stream, then the hashes of months.
-- ARGV: for how long the mark stays (s; 0: none is made); what the session's field meter holds as far as the caller knows, and what it is to hold ("": it is not
-- touched); for how long months stay (s); the entry (json; "": there is none), for how long its mark stays (s), the lowest id that the stream keeps; then, in threes,
-- the number of a month among the keys, a field of it, and what is added to that.
-- Returns 1; 0: the mark is there, and nothing was done; -1: the meter says something else, and nothing was done.
if ARGV[1] ~= '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if ARGV[3] ~= '' then
  if (redis.call('HGET', KEYS[2], 'meter') or '') ~= ARGV[2] then return -1 end
  redis.call('HSET', KEYS[2], 'meter', ARGV[3])
end
for i = 8, #ARGV, 3 do
  local month = KEYS[tonumber(ARGV[i])]
  redis.call('HINCRBYFLOAT', month, ARGV[i + 1], ARGV[i + 2])
  redis.call('EXPIRE', month, ARGV[4])
end
if ARGV[5] ~= '' and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('XADD', KEYS[4], 'MINID', '~', ARGV[7], '*', 'json', ARGV[5])
  redis.call('SET', KEYS[3], 1, 'EX', ARGV[6])
end
if ARGV[1] ~= '0' then redis.call('SET', KEYS[1], 1, 'EX', ARGV[1]) end
return 1
