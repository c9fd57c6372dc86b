-- KEYS: what a turn has been added up with so far, and the hash of a month. ARGV: what the turn has cost by now (USD), for how long each of the two stays (s, s), then
-- the fields of the month that the turn counts for.
-- Returns what these fields hold, in their order, and then what each is allowed besides.
local more = tonumber(ARGV[1]) - tonumber(redis.call('GET', KEYS[1]) or '0')
if more > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  for i = 4, #ARGV do redis.call('HINCRBYFLOAT', KEYS[2], ARGV[i], more) end
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
local fields = {}
for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
for i = 4, #ARGV do fields[#fields + 1] = 'more ' .. ARGV[i] end
return redis.call('HMGET', KEYS[2], unpack(fields))
