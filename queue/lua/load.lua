-- ARGV: prefix, how many heads are looked at at most
-- Returns how many jobs there are and how many are claimed, how many keys are at each place (ready, lease, orphan, delay, parked), and for how many
-- ms the job has been there that waits longest for a replica, 0 if none does. It writes nothing.
local function size(where) return call('ZCARD', P .. where) end
local c = call('HGET', P .. 'count', 'all') or '0'
local r = call('HGET', P .. 'run', 'all') or '0'
local parked = 0
for _, where in ipairs(call('SMEMBERS', P .. 'parks')) do parked = parked + size(where) end
local oldest = 0
for _, where in ipairs({'orphan', 'ready'}) do -- the lowest tag is about the oldest
  for _, key in ipairs(call('ZRANGE', P .. where, 0, tonumber(ARGV[2]) - 1)) do
    local left = call('PTTL', P .. 'd:' .. head(key)[2])
    oldest = math.max(oldest, 3 * DAY * 1000 - math.max(left, 0)) -- one that is not known any more is older than that
  end
end
return {tonumber(c), tonumber(r), size('ready'), size('lease'), size('orphan'), size('delay'), parked, oldest}
